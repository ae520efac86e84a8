"""The web page's routes: its static files, sign-in, signed links to content, data sets.

A link for an `<img>` or a download contains all that it needs: it is signed, expires, and names the file and a state of
its content (mtime and size); once the content changes, the link is refused. So such requests need neither the token nor
the cookie, and neither appears in a URL. Stored files are sent as attachments, or, sandboxed, as pictures of types that
browsers do not execute.
"""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
from pathlib import Path
from typing import Any

from aiohttp import web

from haversack.hub import content
from haversack.hub.datasets import DatasetStore
from haversack.hub.documents import DOCUMENT, SHEET, SHORTCUT, SLIDES
from haversack.hub.index import HubFile
from haversack.hub.media import read_json
from haversack.hub.page import pictures
from haversack.hub.page.sessions import LIFETIME, HubSessions
from haversack.hub.refusal import Refusal, invalid
from haversack.hub.resource import format_time
from haversack.hub.signin import SignIn
from haversack.hub.tree import Tree

KEY_HEADER = "X-Haversack-Key"
_STATIC = Path(__file__).parent / "static"
_MAX_LINKS = 500
# The hub stores a document as text, and downloads are that text.
_DOWNLOAD_SUFFIXES = {DOCUMENT: ".txt", SHEET: ".csv", SLIDES: ".txt"}
_CONTENT_SECURITY_POLICY = "; ".join([
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
])  # fmt: skip
_PAGE_HEADERS = {
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_UNTRUSTED_HEADERS = {
    "Cache-Control": "private, max-age=21600, immutable",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Site:
    """The request handlers of the web page. `cookie` is the name of this hub's cookie, which no other hub uses.

    A request is signed in if it has the cookie and the key (in a header) of one session.
    """

    def __init__(self, tree: Tree, store: DatasetStore, signin: SignIn) -> None:
        self.tree = tree
        self.store = store
        self.signin = signin
        self.sessions = HubSessions()
        # Cookies are shared by all ports of a host, so each hub uses a name of its own.
        self.cookie = "haversack-" + hashlib.sha256(tree.root.encode()).hexdigest()[:12]
        self._files = {path.name: _Asset.of(path) for path in _STATIC.iterdir()}

    def add_routes(self, app: web.Application) -> None:
        """Add the page's routes to `app`."""
        app.router.add_get("/", self.index)
        app.router.add_get("/favicon.ico", self.icon)
        app.router.add_get("/page/static/{name}", self.static)
        app.router.add_post("/page/session", self.sign_in)
        app.router.add_delete("/page/session", self.sign_out)
        app.router.add_post("/page/links", self.links)
        app.router.add_get("/page/datasets", self.datasets)
        for kind, handler in (("download", self.download), ("view", self.view), ("thumbnail", self.thumbnail)):
            app.router.add_get(f"/page/{kind}/{{id}}/{{state}}", handler)

    def is_signed_in(self, request: web.Request) -> bool:
        """Whether a request carries the cookie and the key of one session that has not expired."""
        cookie, key = request.cookies.get(self.cookie), request.headers.get(KEY_HEADER)
        return cookie is not None and key is not None and self.sessions.has(cookie, key)

    def one_time_address(self, url: str) -> str:
        """Return a link to the page at the hub's address `url` that signs in once, within 15 minutes.

        Its secret code follows the `#`, which browsers do not send to servers. A link returned before becomes invalid.
        """
        return f"{url}/#code={self.sessions.new_code()}"

    # Static files

    async def index(self, request: web.Request) -> web.Response:
        """Send the page's HTML."""
        return self._files["index.html"].answer(request)

    async def icon(self, request: web.Request) -> web.Response:
        """Send the page's icon."""
        return self._files["icon.svg"].answer(request)

    async def static(self, request: web.Request) -> web.Response:
        """Send a static file. Raises `Refusal` (404) if the page has none of that name."""
        asset = self._files.get(request.match_info["name"])
        if asset is None:
            raise Refusal(404, "notFound", "The page has no such file.")
        return asset.answer(request)

    # Sign-in

    async def sign_in(self, request: web.Request) -> web.Response:
        """Open a session for the token, or for the one-time code in the link that the hub printed.

        Returns the session's key as JSON and sets its cookie. Raises `Refusal`: 401 if the token or code is not valid,
        400 for a malformed body.
        """
        given = await read_json(request)
        if not isinstance(given, dict):
            raise invalid("The body is not a JSON object.")
        token, code = given.get("token"), given.get("code")
        if isinstance(code, str):
            if not self.sessions.redeem(code):
                raise Refusal(401, "authError", "This link has been used or has expired; sign in with the token.")
        elif not isinstance(token, str) or not self.signin.is_token(token.strip()):
            raise Refusal(401, "authError", "This is not the hub's token.")
        session = self.sessions.open()
        response = web.json_response({"key": session.key, "seconds": LIFETIME})
        response.set_cookie(
            self.cookie, session.cookie, max_age=LIFETIME, httponly=True, samesite="Strict", secure=request.secure
        )
        return response

    async def sign_out(self, request: web.Request) -> web.Response:
        """End the session of the request, if there is one, and delete the browser's cookie."""
        if self.is_signed_in(request):
            self.sessions.end(request.cookies[self.cookie])
        response = web.Response(status=204)
        response.del_cookie(self.cookie, httponly=True, samesite="Strict")
        return response

    # Calls that Drive v3 does not have

    async def links(self, request: web.Request) -> web.Response:
        """Return JSON: by file id, signed links to the content of up to 500 files.

        Each file has a link `download`, and a file of an image type `view` and `thumbnail` too. Folders, shortcuts and
        files that do not exist are left out. Raises `Refusal`: 401 if not signed in, 400 for a malformed body.
        """
        self._require_sign_in(request)
        given = await read_json(request)
        ids = given.get("ids") if isinstance(given, dict) else None
        if not isinstance(ids, list) or len(ids) > _MAX_LINKS or not all(isinstance(one, str) for one in ids):
            raise invalid(f"ids must be a list of at most {_MAX_LINKS} ids.", "ids")
        return web.json_response({"links": await asyncio.to_thread(self._links, ids)})

    async def datasets(self, request: web.Request) -> web.Response:
        """Return JSON: all data sets at their newest versions, private ones too, each with a signed link to its bundle.

        Data sets whose files were deleted by hand are left out. Raises `Refusal` (401) if not signed in.
        """
        self._require_sign_in(request)
        return web.json_response({"datasets": await asyncio.to_thread(self._datasets)})

    # Content, for signed links

    async def download(self, request: web.Request) -> web.StreamResponse:
        """Send a file as an attachment, for a signed link; a document is sent as its text.

        Raises `Refusal`: 403 if the link is expired or its signature wrong, 404 if the file does not exist or its
        content changed, 416 for a range outside the file.
        """
        file, path = await self._resolve_link(request)
        name = file.name + _DOWNLOAD_SUFFIXES.get(file.mime, "")
        return await content.send(request, path, file.mime, md5=file.md5, name=name)

    async def view(self, request: web.Request) -> web.StreamResponse:
        """Send a picture for a signed link: unchanged if browsers show its type, else as JPEG or WebP.

        Raises `Refusal`: 403 if the link is expired or its signature wrong, 404 if the file does not exist or its
        content changed, 415 if it is not a picture that can be shown, 416 for a range outside the file.
        """
        _, path = await self._resolve_link(request)
        mime = await asyncio.to_thread(pictures.browser_type, path)
        if mime is None:
            return _picture_response(*await asyncio.to_thread(pictures.screen_size, path))
        return await content.send(request, path, mime)

    async def thumbnail(self, request: web.Request) -> web.StreamResponse:
        """Send a picture's thumbnail, for a signed link.

        Raises `Refusal`: 403 if the link is expired or its signature wrong, 404 if the file does not exist or its
        content changed, 415 if it is not a picture that can be shown.
        """
        _, path = await self._resolve_link(request)
        return _picture_response(*await asyncio.to_thread(pictures.thumbnail, path))

    def _links(self, ids: list[str]) -> dict[str, dict[str, str]]:
        links = {}
        for file_id in ids:
            try:
                file = self.tree.get(file_id)
            except Refusal:
                continue
            if not file.folder and file.mime != SHORTCUT:
                is_picture = file.mime.startswith("image/") and file.mime != "image/svg+xml"
                kinds = ("download", "view", "thumbnail") if is_picture else ("download",)
                links[file_id] = {
                    kind: self._signed(f"/page/{kind}/{file.id}/{_content_state(file)}") for kind in kinds
                }
        return links

    def _datasets(self) -> list[dict[str, Any]]:
        found = []
        for version in self.store.newest():
            try:
                size = self.store.total_size(version)
            except Refusal:
                continue  # its files were deleted by hand
            path = f"/storage/{version.owner}/{version.slug}/{version.number}/bundle/{version.slug}.zip"
            found.append({
                "ref": version.ref,
                "title": version.details.get("title", version.slug),
                "version": version.number,
                "private": version.private,
                "size": size,
                "updated": format_time(version.created),
                "download": self._signed(path),
            })  # fmt: skip
        return found

    def _signed(self, path: str) -> str:
        return f"{path}?{self.signin.sign(path)}"

    async def _resolve_link(self, request: web.Request) -> tuple[HubFile, Path]:
        """Return the file that a signed link refers to, and its path.

        Raises `Refusal`: 403 if the link is invalid or expired, 404 if the file does not exist or its content changed.
        """
        expires, signature = request.query.get("expires", ""), request.query.get("signature", "")
        if not self.signin.is_valid_link(request.rel_url.raw_path, expires, signature):
            raise Refusal(403, "expired", "The link has expired or was not signed by this hub; reload the page.")
        file, path = await asyncio.to_thread(self.tree.locate, request.match_info["id"])
        if _content_state(file) != request.match_info["state"]:
            raise Refusal(404, "notFound", "The file has changed; reload its folder.")
        return file, path

    def _require_sign_in(self, request: web.Request) -> None:
        """Raise `Refusal` (401) unless the request is signed in."""
        if not self.is_signed_in(request):
            raise Refusal(401, "authError", "Sign in to the page first.", where="Cookie")


class _Asset:
    """A static file of the page, kept in memory; its ETag lets browsers revalidate their copy."""

    def __init__(self, body: bytes, mime: str) -> None:
        self.body = body
        tag = hashlib.sha256(body).hexdigest()[:16]
        self.headers = {"Content-Type": mime, "Cache-Control": "no-cache", "ETag": f'"{tag}"', **_PAGE_HEADERS}

    @classmethod
    def of(cls, path: Path) -> _Asset:
        """Read a static file; its type follows from its suffix."""
        mime = "text/javascript" if path.suffix == ".js" else mimetypes.guess_type(path.name)[0]
        return cls(path.read_bytes(), f"{mime}; charset=utf-8")

    def answer(self, request: web.Request) -> web.Response:
        """Return a response with the file, or 304 if the request's If-None-Match shows that the browser has it."""
        if request.headers.get("If-None-Match") == self.headers["ETag"]:
            return web.Response(status=304, headers=self.headers)
        return web.Response(body=self.body, headers=self.headers)


def _picture_response(body: bytes, mime: str) -> web.Response:
    return web.Response(body=body, headers={"Content-Type": mime, **_UNTRUSTED_HEADERS})


def _content_state(file: HubFile) -> str:
    """Return a string that changes whenever the file's content changes."""
    return f"{file.modified:x}-{file.size:x}"
