"""Kaggle's API, as its own `kaggle` command (2.2) and kagglehub (1.0) speak it.

Every call is `POST …/v1/{package.Service}/{Method}` with camelCase JSON, fields with default values left out; an error
is a status with `{"code", "message"}`. A download is answered by a redirect to a signed link that needs no header and
expires; an upload goes to a link that is a secret of its own. Public data sets are read by anyone on this machine, as
on Kaggle; everything else needs the token or the Kaggle key. Competitions, models and kernels are not served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

from aiohttp import web

from haversack.hub import content, uploads
from haversack.hub.media import read_json
from haversack.hub.refusal import Refusal
from haversack.hub.shelf import Blob, Shelf, Version
from haversack.hub.signin import KAGGLE_USERNAME, SignIn
from haversack.hub.tree import mime_of
from haversack.hub.uploads import Uploads

_SETS = "datasets.DatasetApiService"
_COMPETITIONS = "competitions.CompetitionApiService"
_COMPETITIONS_OWNER = "c"
_DEEPEST = 100
_INTROSPECT = "security.OAuthService/IntrospectToken"


class Kaggle:
    """The handlers; `origin` tells the scheme and host that a request was sent to."""

    def __init__(self, shelf: Shelf, blobs: Uploads, signin: SignIn, origin: Callable[[web.Request], str]) -> None:
        self.shelf = shelf
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
            f"{_SETS}/CreateDataset": self._create,
            f"{_SETS}/CreateDatasetVersion": self._create_version,
        }
        self._downloads: dict[str, Callable[[dict[str, Any], bool], str]] = {
            f"{_SETS}/DownloadDataset": self._download_path,
            f"{_COMPETITIONS}/DownloadDataFiles": self._competition_path,
            f"{_COMPETITIONS}/DownloadDataFile": self._competition_path,
        }

    def add_routes(self, app: web.Application) -> None:
        for base in ("/api/v1", "/v1"):
            app.router.add_post(base + "/{service}/{method}", self.call)
        for kind in ("datasets", "competitions"):
            app.router.add_get(f"/{kind}/{{name:.+}}", self.page)
        app.router.add_get("/storage/{owner}/{slug}/{number}/{name:.+}", self.stored)
        app.router.add_put("/blobs/{id}", self.put_blob)

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Any call of the API."""
        name = f"{request.match_info['service']}/{request.match_info['method']}"
        # Who asks whether a token is right signs in with it, right or wrong.
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
        """A link to a data set's page, as Kaggle has one: here all of them are on one page."""
        raise web.HTTPFound("/#/data")

    async def stored(self, request: web.Request) -> web.StreamResponse:
        """A signed link: a bundle, or one file of a version."""
        path = request.rel_url.raw_path
        expires, signature = request.query.get("expires", ""), request.query.get("signature", "")
        if not self.signin.is_signed(path, expires, signature):
            raise Refusal(
                403, "expired", "The link is not one that the hub signed, or it has expired; ask for a new one."
            )
        owner, slug, number, kind, name = path.removeprefix("/storage/").split("/", 4)
        version = await asyncio.to_thread(self.shelf.find, owner, slug, int(number))
        name = unquote(name)
        if kind == "bundle":
            stored = await asyncio.to_thread(self.shelf.bundle, version)
        else:
            stored = await asyncio.to_thread(self.shelf.file, version, name)
        md5 = await asyncio.to_thread(self.shelf.md5, stored)
        mime = "application/zip" if kind == "bundle" else mime_of(name)
        return await content.send(request, stored, mime, md5=md5, name=name.rsplit("/", 1)[-1])

    async def put_blob(self, request: web.Request) -> web.StreamResponse:
        """Bytes of an upload; the link is the secret."""
        upload = await asyncio.to_thread(self.blobs.find, request.match_info["id"], "blob")
        async with self.blobs.lock(upload):
            upload = await asyncio.to_thread(self.blobs.find, upload.id, "blob")
            if upload.result is None:
                staged = await self.blobs.receive(request, upload)
                if staged is None:
                    return uploads.incomplete(await asyncio.to_thread(self.blobs.received, upload))
                await asyncio.to_thread(self.blobs.finish, upload, {"size": staged.size, "md5": staged.md5})
        return web.json_response({"token": upload.id})

    def _signed_in(self, request: web.Request) -> bool:
        """Whether the request names itself rightly; False for nobody. Raises `Refusal` for a wrong token or key."""
        given = request.headers.get("Authorization")
        if given is None:
            return False
        if self.signin.opens_kaggle(given):
            return True
        raise Refusal(401, "authError", "The hub refused the sign-in: the token or Kaggle key is a wrong one.")

    def _introspect(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        if not self.signin.is_token(_text(body, "token")):
            return {"active": False}
        return {"active": True, "username": KAGGLE_USERNAME, "scope": ""}

    def _find(self, body: dict[str, Any], signed_in: bool) -> Version:
        number = body.get("datasetVersionNumber")
        if number is not None and (not isinstance(number, int) or not 0 < number < 2**31):
            raise Refusal(400, "invalid", "datasetVersionNumber is not a version's number.")
        try:
            version = self.shelf.find(_text(body, "ownerSlug"), _text(body, "datasetSlug"), number)
        except Refusal:
            _require(signed_in)
            raise
        if version.private:
            _require(signed_in)
        return version

    def _get(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        return self._described(self._find(body, signed_in))

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
        start, size = _page(body)
        members = self.shelf.members(version)
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
            for version in self.shelf.newest()
            if (signed_in or not version.private)
            and (not user or version.owner == user)
            and sought in f"{version.ref} {version.details.get('title', '')}".lower()
        ]
        start, size = _page(body)
        answer: dict[str, Any] = {"datasets": [self._described(version) for version in found[start : start + size]]}
        if len(found) > start + size:
            answer["nextPageToken"] = str(start + size)
        return answer

    def _described(self, version: Version) -> dict[str, Any]:
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
            "totalBytes": self.shelf.total(version),
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
            self.shelf.bundle(version)
            return f"{start}/bundle/{version.slug}.zip"
        self.shelf.file(version, name)
        return f"{start}/file/{quote(name)}"

    def _competition(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        """What names a competition's data as a data set's. Raises `Refusal` where its rules are not accepted."""
        _require(signed_in)
        name = _text(body, "competitionName")
        version = self.shelf.find(_COMPETITIONS_OWNER, name)
        if self.shelf.has_rules(version):
            raise Refusal(
                403, "forbidden", "You must accept this competition's rules before you'll be able to download files."
            )
        return {**body, "ownerSlug": version.owner, "datasetSlug": version.slug}

    def _get_competition(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        _require(signed_in)
        version = self.shelf.find(_COMPETITIONS_OWNER, _text(body, "competitionName"))
        url = f"/competitions/{version.slug}"
        return {"ref": version.slug, "title": version.details.get("title", version.slug), "url": url}

    def _list_data_files(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        answer = self._list_files(self._competition(body, signed_in), signed_in)
        return {"files": answer.pop("datasetFiles"), **answer}

    def _competition_path(self, body: dict[str, Any], signed_in: bool) -> str:
        return self._download_path(self._competition(body, signed_in), signed_in)

    def _start_blob(self, body: dict[str, Any], signed_in: bool) -> str:
        _require(signed_in)
        if body.get("type", "DATASET") != "DATASET":
            raise Refusal(501, "notImplemented", "The hub takes files of data sets only.")
        size = body.get("contentLength", 0)
        if not isinstance(size, int) or not 0 <= size < 2**60:
            raise Refusal(400, "invalid", "contentLength is not a number of bytes.")
        return self.blobs.open("blob", {"name": _text(body, "name") or "file"}, size)

    def _create(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        _require(signed_in)
        slug = _text(body, "slug") or _text(body, "title").strip().lower().replace(" ", "-")
        details = {"title": _text(body, "title") or slug, **_said(body)}
        owner = _text(body, "ownerSlug") or KAGGLE_USERNAME
        blobs = self._uploaded(body)
        try:
            version = self.shelf.create(owner, slug, details, _flag(body, "isPrivate"), list(blobs.values()))
        except Refusal as refusal:
            if refusal.status != 409:
                raise
            # Of this Kaggle tells with status 200, and kagglehub then makes the next version.
            return {"status": "error", "error": refusal.message}
        return self._published(version, blobs)

    def _create_version(self, body: dict[str, Any], signed_in: bool) -> dict[str, Any]:
        _require(signed_in)
        what = body.get("body") or {}
        if not isinstance(what, dict):
            raise Refusal(400, "invalid", "body is not a JSON object.")
        blobs = self._uploaded(what)
        notes, owner, slug = _text(what, "versionNotes"), _text(body, "ownerSlug"), _text(body, "datasetSlug")
        version = self.shelf.add_version(owner, slug, notes, _said(what), list(blobs.values()))
        return self._published(version, blobs)

    def _published(self, version: Version, blobs: dict[str, Blob]) -> dict[str, Any]:
        for token in blobs:
            self.blobs.cancel(token)
        return {
            "ref": f"/{version.ref}",
            "url": f"/datasets/{version.ref}",
            "status": "Ok",
            "error": "",
        }

    def _uploaded(self, body: dict[str, Any], folder: tuple[str, ...] = ()) -> dict[str, Blob]:
        """The uploads that a body names, by their tokens; those in its directories too."""
        if len(folder) > _DEEPEST:
            raise Refusal(400, "invalid", f"Directories nest deeper than {_DEEPEST}.")
        blobs: dict[str, Blob] = {}
        for file in _objects(body, "files"):
            try:
                upload = self.blobs.find(_text(file, "token"), "blob")
            except Refusal:
                raise Refusal(400, "invalid", "A file's token is none that the hub gave.") from None
            if upload.result is None:
                raise Refusal(400, "invalid", f"The upload of {upload.details['name']} is not complete.")
            blobs[upload.id] = Blob(upload.details["name"], self.blobs.path(upload), folder)
        for directory in _objects(body, "directories"):
            blobs |= self._uploaded(directory, (*folder, _text(directory, "name")))
        return blobs


def _require(signed_in: bool) -> None:
    if not signed_in:
        raise Refusal(403, "forbidden", "Permission denied: sign in with the hub's token or its Kaggle key.")


def _said(body: dict[str, Any]) -> dict[str, Any]:
    """What a body says about a set, and is kept for who asks."""
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
        raise Refusal(400, "invalid", f"{key} is not a text.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refusal(400, "invalid", f"{key} is not Unicode text.") from None
    return value


def _flag(body: dict[str, Any], key: str) -> bool:
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise Refusal(400, "invalid", f"{key} is not true or false.")
    return value


def _page(body: dict[str, Any]) -> tuple[int, int]:
    """Where a page starts and how long it is; Kaggle's pages have 20 rows unless asked."""
    token, size, page = _text(body, "pageToken"), body.get("pageSize", 20), body.get("page", 1)
    if not isinstance(size, int) or not isinstance(page, int) or not 1 <= size <= 10_000 or not 1 <= page < 2**31:
        raise Refusal(400, "invalid", "pageSize is between 1 and 10000.")
    if token and not (token.isascii() and token.isdigit() and len(token) < 12):
        raise Refusal(400, "invalid", "The page token is none that the hub gave.")
    return (int(token) if token else (page - 1) * size), size


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"
