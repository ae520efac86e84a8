"""The page's routes: its own files, sign-in, links to bytes, data sets.

Everything that a link in an `<img>` or a download needs to know is in the link: it is signed, names the file in one
state of its bytes, and expires. So neither the token nor the cookie is ever needed for them, and neither stands in an
address. What users stored is sent as an attachment, or as a picture of a type that browsers do not run, in a sandbox.
"""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
from pathlib import Path
from typing import Any

from aiohttp import web

from haversack.hub import content
from haversack.hub.documents import DOCUMENT, SHEET, SHORTCUT, SLIDES
from haversack.hub.media import read_json
from haversack.hub.page import pictures
from haversack.hub.page.sessions import LIFETIME, HubSessions
from haversack.hub.refusal import Refusal, invalid
from haversack.hub.resource import time_text
from haversack.hub.shelf import Shelf
from haversack.hub.signin import SignIn
from haversack.hub.tree import HubFile, Tree

KEY_HEADER = "X-Haversack-Key"
_STATIC = Path(__file__).parent / "static"
_MOST_LINKS = 500
# A document is kept as its text, so that is what it is downloaded as.
_ENDINGS = {DOCUMENT: ".txt", SHEET: ".csv", SLIDES: ".txt"}
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
_OWN_HEADERS = {
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_OF_USERS = {
    "Cache-Control": "private, max-age=21600, immutable",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Site:
    """The handlers."""

    def __init__(self, tree: Tree, shelf: Shelf, signin: SignIn) -> None:
        self.tree = tree
        self.shelf = shelf
        self.signin = signin
        self.sessions = HubSessions()
        # Cookies do not tell the ports of a host apart, so each hub's has a name of its own.
        self.cookie = "haversack-" + hashlib.sha256(tree.root.encode()).hexdigest()[:12]
        self._files = {path.name: _Asset.of(path) for path in _STATIC.iterdir()}

    def add_routes(self, app: web.Application) -> None:
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
        """Whether a request comes from the page, with the cookie and the key of one session."""
        cookie, key = request.cookies.get(self.cookie), request.headers.get(KEY_HEADER)
        return cookie is not None and key is not None and self.sessions.has(cookie, key)

    def one_time_address(self, url: str) -> str:
        """An address of the page that signs in once; the code is behind the `#`, which browsers never send."""
        return f"{url}/#code={self.sessions.new_code()}"

    # The page itself

    async def index(self, request: web.Request) -> web.Response:
        return self._files["index.html"].answer(request)

    async def icon(self, request: web.Request) -> web.Response:
        return self._files["icon.svg"].answer(request)

    async def static(self, request: web.Request) -> web.Response:
        asset = self._files.get(request.match_info["name"])
        if asset is None:
            raise Refusal(404, "notFound", "The page has no such file.")
        return asset.answer(request)

    # Sign-in

    async def sign_in(self, request: web.Request) -> web.Response:
        """Open a session for the token, or for the code of the address that the hub printed."""
        given = await read_json(request)
        if not isinstance(given, dict):
            raise invalid("The body is not a JSON object.")
        token, code = given.get("token"), given.get("code")
        if isinstance(code, str):
            if not self.sessions.redeem(code):
                raise Refusal(401, "authError", "This link was used before or is too old; sign in with the token.")
        elif not isinstance(token, str) or not self.signin.is_token(token.strip()):
            raise Refusal(401, "authError", "This is not the hub's token.")
        session = self.sessions.open()
        response = web.json_response({"key": session.key, "seconds": LIFETIME})
        response.set_cookie(
            self.cookie, session.cookie, max_age=LIFETIME, httponly=True, samesite="Strict", secure=request.secure
        )
        return response

    async def sign_out(self, request: web.Request) -> web.Response:
        """End the session, if there is one."""
        if self.is_signed_in(request):
            self.sessions.end(request.cookies[self.cookie])
        response = web.Response(status=204)
        response.del_cookie(self.cookie, httponly=True, samesite="Strict")
        return response

    # What Drive v3 has no call for

    async def links(self, request: web.Request) -> web.Response:
        """Signed links to the bytes of up to 500 files, by id; folders and files that are gone have none."""
        self._require(request)
        given = await read_json(request)
        ids = given.get("ids") if isinstance(given, dict) else None
        if not isinstance(ids, list) or len(ids) > _MOST_LINKS or not all(isinstance(one, str) for one in ids):
            raise invalid(f"ids is a list of at most {_MOST_LINKS} ids.", "ids")
        return web.json_response({"links": await asyncio.to_thread(self._links, ids)})

    async def datasets(self, request: web.Request) -> web.Response:
        """The data sets of the hub at their newest versions, with a signed link to each one's archive."""
        self._require(request)
        return web.json_response({"datasets": await asyncio.to_thread(self._datasets)})

    # Bytes, by signed links

    async def download(self, request: web.Request) -> web.StreamResponse:
        file, path = await self._linked(request)
        name = file.name + _ENDINGS.get(file.mime, "")
        return await content.send(request, path, file.mime, md5=file.md5, name=name)

    async def view(self, request: web.Request) -> web.StreamResponse:
        """A picture as large as it is."""
        _, path = await self._linked(request)
        mime = await asyncio.to_thread(pictures.shown_as, path)
        if mime is None:
            return _picture(*await asyncio.to_thread(pictures.large, path))
        return await content.send(request, path, mime)

    async def thumbnail(self, request: web.Request) -> web.StreamResponse:
        _, path = await self._linked(request)
        return _picture(*await asyncio.to_thread(pictures.thumbnail, path))

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
                links[file_id] = {kind: self._signed(f"/page/{kind}/{file.id}/{_state(file)}") for kind in kinds}
        return links

    def _datasets(self) -> list[dict[str, Any]]:
        found = []
        for version in self.shelf.newest():
            try:
                size = self.shelf.total(version)
            except Refusal:
                continue  # its files were removed by hand
            path = f"/storage/{version.owner}/{version.slug}/{version.number}/bundle/{version.slug}.zip"
            found.append({
                "ref": version.ref,
                "title": version.details.get("title", version.slug),
                "version": version.number,
                "private": version.private,
                "size": size,
                "updated": time_text(version.created),
                "download": self._signed(path),
            })  # fmt: skip
        return found

    def _signed(self, path: str) -> str:
        return f"{path}?{self.signin.sign(path)}"

    async def _linked(self, request: web.Request) -> tuple[HubFile, Path]:
        """The file that a signed link is about. Raises `Refusal` for a link that is none, or about older bytes."""
        expires, signature = request.query.get("expires", ""), request.query.get("signature", "")
        if not self.signin.is_signed(request.rel_url.raw_path, expires, signature):
            raise Refusal(403, "expired", "The link has expired, or the hub did not make it; open the page anew.")
        file, path = await asyncio.to_thread(self.tree.locate, request.match_info["id"])
        if _state(file) != request.match_info["state"]:
            raise Refusal(404, "notFound", "The file has changed; look at its folder again.")
        return file, path

    def _require(self, request: web.Request) -> None:
        if not self.is_signed_in(request):
            raise Refusal(401, "authError", "Sign in to the page first.", where="Cookie")


class _Asset:
    """One of the page's own files, read once; browsers ask whether theirs is still the same."""

    def __init__(self, body: bytes, mime: str) -> None:
        self.body = body
        tag = hashlib.sha256(body).hexdigest()[:16]
        self.headers = {"Content-Type": mime, "Cache-Control": "no-cache", "ETag": f'"{tag}"', **_OWN_HEADERS}

    @classmethod
    def of(cls, path: Path) -> _Asset:
        mime = "text/javascript" if path.suffix == ".js" else mimetypes.guess_type(path.name)[0]
        return cls(path.read_bytes(), f"{mime}; charset=utf-8")

    def answer(self, request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == self.headers["ETag"]:
            return web.Response(status=304, headers=self.headers)
        return web.Response(body=self.body, headers=self.headers)


def _picture(body: bytes, mime: str) -> web.Response:
    return web.Response(body=body, headers={"Content-Type": mime, **_OF_USERS})


def _state(file: HubFile) -> str:
    """A word for the file's bytes as they are now."""
    return f"{file.modified:x}-{file.size:x}"
