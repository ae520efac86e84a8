"""Kaggle's API, as its `kaggle` command (2.2) and kagglehub (1.0) use it.

Each call is `POST …/v1/{package.Service}/{Method}` with camelCase JSON that omits fields with default values; an error
is a status with `{"code", "message"}`. A download is answered with a redirect to a signed link that needs no header
and expires; an upload goes to a secret link. Anyone on this machine can read public data sets, as on Kaggle; everything
else needs the token or the Kaggle key. Models are not served; of competitions only their data files are, and of
notebooks (Kaggle's kernels) only their source.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

from aiohttp import web

from haversack.hub import content, uploads
from haversack.hub.datasets import Blob, DatasetStore, Version
from haversack.hub.index import guess_mime
from haversack.hub.media import read_json
from haversack.hub.notebooks import NotebookStore
from haversack.hub.refusal import Refusal
from haversack.hub.signin import KAGGLE_USERNAME, SignIn
from haversack.hub.uploads import Uploads

_SETS = "datasets.DatasetApiService"
_COMPETITIONS = "competitions.CompetitionApiService"
_COMPETITIONS_OWNER = "c"
_KERNELS = "kernels.KernelsApiService"
_MAX_DEPTH = 100
_INTROSPECT = "security.OAuthService/IntrospectToken"


class KaggleService:
    """The request handlers of Kaggle's API.

    Args:
        store: the published data sets.
        notebooks: the notebooks.
        blobs: the uploads of files for new versions.
        signin: checks credentials, signs download links.
        origin: returns the scheme and host that a request was sent to, for links.
    """

    def __init__(
        self,
        store: DatasetStore,
        notebooks: NotebookStore,
        blobs: Uploads,
        signin: SignIn,
        origin: Callable[[web.Request], str],
    ) -> None:
        self.store = store
        self.notebooks = notebooks
        self.blobs = blobs
        self.signin = signin
        self.origin = origin
        self._calls: dict[str, Callable[[dict[str, Any], bool], dict[str, Any]]] = {
            _INTROSPECT: self._introspect,
            f"{_SETS}/GetDataset": self._get,
            f"{_SETS}/GetDatasetMetadata": self._metadata,
            f"{_SETS}/GetDatasetStatus": self._status,
            f"{_SETS}/ListDatasetFiles": self._list_files,
            f"{_SETS}/ListDatasets": self._list,
            f"{_COMPETITIONS}/GetCompetition": self._get_competition,
            f"{_COMPETITIONS}/ListDataFiles": self._list_data_files,
            f"{_KERNELS}/GetKernel": self._get_notebook,
            f"{_SETS}/CreateDataset": self._create,
            f"{_SETS}/CreateDatasetVersion": self._create_version,
        }
        self._downloads: dict[str, Callable[[dict[str, Any], bool], str]] = {
            f"{_SETS}/DownloadDataset": self._download_path,
            f"{_COMPETITIONS}/DownloadDataFiles": self._competition_download_path,
            f"{_COMPETITIONS}/DownloadDataFile": self._competition_download_path,
        }

    def add_routes(self, app: web.Application) -> None:
        """Add to `app` the routes of the API, of data sets' and competitions' pages, of stored files and of uploads."""
        for base in ("/api/v1", "/v1"):
            app.router.add_post(base + "/{service}/{method}", self.call)
        for kind in ("datasets", "competitions"):
            app.router.add_get(f"/{kind}/{{name:.+}}", self.page)
        app.router.add_get("/storage/{owner}/{slug}/{number}/{name:.+}", self.stored)
        app.router.add_put("/blobs/{id}", self.put_blob)

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Handle any call of the API; a download is answered with a redirect (302) to a signed link.

        Raises `Refusal`: 401 for wrong credentials, 403 if the call needs credentials and has none, 400 for a malformed
        body, 404 for a data set or file that does not exist, 501 for a method that is not supported.
        """
        name = f"{request.match_info['service']}/{request.match_info['method']}"
        # IntrospectToken sends the token in question, valid or not, as its own credentials.
        signed_in = name != _INTROSPECT and self._signed_in(request)
        body = await read_json(request)
        if not isinstance(body, dict | None):
            raise Refusal(400, "invalid", "The body is not a JSON object.")
        if name in self._downloads:
            path = await asyncio.to_thread(self._downloads[name], body or {}, signed_in)
            link = f"{self.origin(request)}{path}?{self.signin.sign(path)}"
            return web.Response(status=302, headers={"Location": link})
        if name == "blobs.BlobApiService/StartBlobUpload":
            blob_id = await asyncio.to_thread(self._start_blob, body or {}, signed_in)
            return web.json_response({"token": blob_id, "createUrl": f"{self.origin(request)}/blobs/{blob_id}"})
        if name not in self._calls:
            raise Refusal(501, "notImplemented", f"The hub does not support {name[:100]} of Kaggle's API.")
        answer = await asyncio.to_thread(self._calls[name], body or {}, signed_in)
        if "url" in answer:
            answer["url"] = self.origin(request) + answer["url"]
        return web.json_response(answer)

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Redirect the address of a data set's or competition's page to the web page's list of all data sets."""
        raise web.HTTPFound("/#/data")

    async def stored(self, request: web.Request) -> web.StreamResponse:
        """Send a bundle, or one file of a version, for a signed link.

        Raises `Refusal`: 403 if the link is expired or its signature wrong, 404 if the version or file does not exist,
        416 for a range outside the file, 422 for a member of an archive that cannot be read.
        """
        path = request.rel_url.raw_path
        expires, signature = request.query.get("expires", ""), request.query.get("signature", "")
        if not self.signin.is_valid_link(path, expires, signature):
            raise Refusal(
                403, "expired", "The link has expired or was not signed by this hub; request the download again."
            )
        owner, slug, number, kind, name = path.removeprefix("/storage/").split("/", 4)
        version = await asyncio.to_thread(self.store.find, owner, slug, int(number))
        name = unquote(name)
        if kind == "bundle":
            stored = await asyncio.to_thread(self.store.bundle, version)
        else:
            stored = await asyncio.to_thread(self.store.file, version, name)
        md5 = await asyncio.to_thread(self.store.md5, stored)
        mime = "application/zip" if kind == "bundle" else guess_mime(name)
        return await content.send(request, stored, mime, md5=md5, name=name.rsplit("/", 1)[-1])

    async def put_blob(self, request: web.Request) -> web.StreamResponse:
        """Receive a chunk of an upload; the secret link itself is the credential.

        Responds with 308 and the range received, or with the upload's token when it is complete. Raises `Refusal`: 404
        if there is no such upload, 400 for a chunk that does not fit.
        """
        upload = await asyncio.to_thread(self.blobs.find, request.match_info["id"], "blob")
        async with self.blobs.lock(upload):
            upload = await asyncio.to_thread(self.blobs.find, upload.id, "blob")
            if upload.result is None:
                staged = await self.blobs.receive(request, upload)
                if staged is None:
                    return uploads.incomplete_response(await asyncio.to_thread(self.blobs.received, upload))
                await asyncio.to_thread(self.blobs.save_result, upload, {"size": staged.size, "md5": staged.md5})
        return web.json_response({"token": upload.id})

    def _signed_in(self, request: web.Request) -> bool:
        """Whether the request has valid credentials; False if it has none. Raises `Refusal` (401) for wrong ones."""
        given = request.headers.get("Authorization")
        if given is None:
            return False
        if self.signin.opens_kaggle(given):
            return True
        raise Refusal(401, "authError", "The hub refused the sign-in: the token or Kaggle key is wrong.")

    def _introspect(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        if not self.signin.is_token(_text(body, "token")):
            return {"active": False}
        return {"active": True, "username": KAGGLE_USERNAME, "scope": ""}

    def _find(self, body: dict[str, Any], signed_in: bool) -> Version:
        """Return the version that a body names.

        Raises `Refusal`: 404 if it does not exist; 403 if it is private or missing and the caller is not signed in, so
        that the existence of a private data set is not revealed.
        """
        number = body.get("datasetVersionNumber")
        if number is not None and (not isinstance(number, int) or not 0 < number < 2**31):
            raise Refusal(400, "invalid", "datasetVersionNumber is not a version number.")
        try:
            version = self.store.find(_text(body, "ownerSlug"), _text(body, "datasetSlug"), number)
        except Refusal:
            _require_sign_in(signed_in)
            raise
        if version.private:
            _require_sign_in(signed_in)
        return version

    def _get(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        return self._dataset_json(self._find(body, signed_in))

    def _metadata(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        version = self._find(body, signed_in)
        info = {
            "datasetSlug": version.slug,
            "ownerUser": version.owner,
            "title": version.details.get("title", version.slug),
            "subtitle": version.details.get("subtitle", ""),
            "description": version.details.get("description", ""),
            "isPrivate": version.private,
            "licenses": [{"name": version.details.get("licenseName", "unknown")}],
            "keywords": version.details.get("keywords", []),
        }
        return {"info": info}

    def _status(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        self._find(body, signed_in)
        return {"status": "READY"}

    def _list_files(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        version = self._find(body, signed_in)
        start, size = _page_range(body)
        members = self.store.members(version)
        answer: dict[str, Any] = {
            "datasetFiles": [
                {"name": member.name, "totalBytes": member.size, "creationDate": _time(version.created)}
                for member in members[start : start + size]
            ]
        }
        if len(members) > start + size:
            answer["nextPageToken"] = str(start + size)
        return answer

    def _list(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        sought, user = _text(body, "search").lower(), _text(body, "user").lower()
        found = [
            version
            for version in self.store.newest()
            if (signed_in or not version.private)
            and (not user or version.owner == user)
            and sought in f"{version.ref} {version.details.get('title', '')}".lower()
        ]
        start, size = _page_range(body)
        answer: dict[str, Any] = {"datasets": [self._dataset_json(version) for version in found[start : start + size]]}
        if len(found) > start + size:
            answer["nextPageToken"] = str(start + size)
        return answer

    def _dataset_json(self, version: Version) -> dict[str, Any]:
        return {
            "ref": version.ref,
            "ownerRef": version.owner,
            "ownerName": version.owner,
            "creatorName": KAGGLE_USERNAME,
            "title": version.details.get("title", version.slug),
            "subtitle": version.details.get("subtitle", ""),
            "description": version.details.get("description", ""),
            "licenseName": version.details.get("licenseName", "unknown"),
            "isPrivate": version.private,
            "totalBytes": self.store.total_size(version),
            "lastUpdated": _time(version.created),
            "currentVersionNumber": version.number,
            "versions": [
                {"versionNumber": version.number, "creationDate": _time(version.created), "versionNotes": version.notes}
            ],
        }

    def _download_path(self, body: dict[str, Any], signed_in: bool) -> str:
        version = self._find(body, signed_in)
        start = f"/storage/{version.owner}/{version.slug}/{version.number}"
        name = _text(body, "fileName")
        if not name:
            self.store.bundle(version)
            return f"{start}/bundle/{version.slug}.zip"
        self.store.file(version, name)
        return f"{start}/file/{quote(name)}"

    def _competition_body(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        """Return the body with the competition's data set as its owner and slug.

        Raises `Refusal` (403) if the caller is not signed in or the competition's rules are not accepted.
        """
        _require_sign_in(signed_in)
        name = _text(body, "competitionName")
        version = self.store.find(_COMPETITIONS_OWNER, name)
        if self.store.has_rules(version):
            raise Refusal(
                403, "forbidden", "You must accept this competition's rules before you'll be able to download files."
            )
        return {**body, "ownerSlug": version.owner, "datasetSlug": version.slug}

    def _get_competition(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        _require_sign_in(signed_in)
        version = self.store.find(_COMPETITIONS_OWNER, _text(body, "competitionName"))
        url = f"/competitions/{version.slug}"
        return {"ref": version.slug, "title": version.details.get("title", version.slug), "url": url}

    def _list_data_files(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        answer = self._list_files(self._competition_body(body, signed_in), signed_in)
        return {"files": answer.pop("datasetFiles"), **answer}

    def _competition_download_path(self, body: dict[str, Any], signed_in: bool) -> str:
        return self._download_path(self._competition_body(body, signed_in), signed_in)

    def _get_notebook(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        _require_sign_in(signed_in)
        found = self.notebooks.find(_text(body, "userName"), _text(body, "kernelSlug"))
        kind = {"language": "python", "kernelType": "notebook", "slug": found.slug}
        about = {
            "ref": found.ref,
            "title": found.slug,
            "author": found.owner,
            "isPrivate": True,
            "enableInternet": True,
        }
        return {"metadata": {**about, **kind}, "blob": {"source": found.source, **kind}}

    def _start_blob(self, body: dict[str, Any], signed_in: bool) -> str:
        _require_sign_in(signed_in)
        if body.get("type", "DATASET") != "DATASET":
            raise Refusal(501, "notImplemented", "The hub accepts uploads for data sets only.")
        size = body.get("contentLength", 0)
        if not isinstance(size, int) or not 0 <= size < 2**60:
            raise Refusal(400, "invalid", "contentLength is not a number of bytes.")
        return self.blobs.open("blob", {"name": _text(body, "name") or "file"}, size)

    def _create(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        _require_sign_in(signed_in)
        slug = _text(body, "slug") or _text(body, "title").strip().lower().replace(" ", "-")
        details = {"title": _text(body, "title") or slug, **_details(body)}
        owner = _text(body, "ownerSlug") or KAGGLE_USERNAME
        blobs = self._resolve_blobs(body)
        try:
            version = self.store.create(owner, slug, details, _flag(body, "isPrivate"), list(blobs.values()))
        except Refusal as refusal:
            if refusal.status != 409:
                raise
            # Kaggle answers this error with status 200; kagglehub then creates the next version.
            return {"status": "error", "error": refusal.message}
        return self._publication_answer(version, blobs)

    def _create_version(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        _require_sign_in(signed_in)
        what = body.get("body") or {}
        if not isinstance(what, dict):
            raise Refusal(400, "invalid", "body is not a JSON object.")
        blobs = self._resolve_blobs(what)
        notes, owner, slug = _text(what, "versionNotes"), _text(body, "ownerSlug"), _text(body, "datasetSlug")
        version = self.store.add_version(owner, slug, notes, _details(what), list(blobs.values()))
        return self._publication_answer(version, blobs)

    def _publication_answer(self, version: Version, blobs: dict[str, Blob]) -> dict[str, Any]:
        """Delete the uploads that became a version, and return Kaggle's answer for it."""
        for token in blobs:
            self.blobs.cancel(token)
        return {
            "ref": f"/{version.ref}",
            "url": f"/datasets/{version.ref}",
            "status": "Ok",
            "error": "",
        }

    def _resolve_blobs(self, body: dict[str, Any], folder: tuple[str, ...] = ()) -> dict[str, Blob]:
        """Return the uploads that a body names, by their tokens; subdirectories are included, recursively.

        Raises `Refusal` (400) for an unknown token or an incomplete upload.
        """
        if len(folder) > _MAX_DEPTH:
            raise Refusal(400, "invalid", f"Directories are nested more than {_MAX_DEPTH} deep.")
        blobs: dict[str, Blob] = {}
        for file in _objects(body, "files"):
            try:
                upload = self.blobs.find(_text(file, "token"), "blob")
            except Refusal:
                raise Refusal(400, "invalid", "A file's token is not the token of an upload to this hub.") from None
            if upload.result is None:
                raise Refusal(400, "invalid", f"The upload of {upload.details['name']} is not complete.")
            blobs[upload.id] = Blob(upload.details["name"], self.blobs.path(upload), folder)
        for directory in _objects(body, "directories"):
            blobs |= self._resolve_blobs(directory, (*folder, _text(directory, "name")))
        return blobs


def _require_sign_in(signed_in: bool) -> None:
    if not signed_in:
        raise Refusal(403, "forbidden", "Permission denied: sign in with the hub's token or its Kaggle key.")


def _details(body: dict[str, Any]) -> dict[str, Any]:
    """Return the descriptive fields of a body that are stored with a data set."""
    return {key: _text(body, key) for key in ("subtitle", "description", "licenseName") if body.get(key)}


def _objects(body: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = body.get(key) or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Refusal(400, "invalid", f"{key} is not a list of objects.")
    return found


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refusal(400, "invalid", f"{key} is not a string.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refusal(400, "invalid", f"{key} is not valid Unicode.") from None
    return value


def _flag(body: dict[str, Any], key: str) -> bool:
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise Refusal(400, "invalid", f"{key} is not true or false.")
    return value


def _page_range(body: dict[str, Any]) -> tuple[int, int]:
    """Return the offset and the length of the requested page; Kaggle's default is 20 rows."""
    token, size, page = _text(body, "pageToken"), body.get("pageSize", 20), body.get("page", 1)
    if not isinstance(size, int) or not isinstance(page, int) or not 1 <= size <= 10_000 or not 1 <= page < 2**31:
        raise Refusal(400, "invalid", "pageSize must be between 1 and 10000.")
    if token and not (token.isascii() and token.isdigit() and len(token) < 12):
        raise Refusal(400, "invalid", "The page token was not issued by this hub.")
    return (int(token) if token else (page - 1) * size), size


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"
