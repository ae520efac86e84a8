"""Our own small client of Kaggle's API: versions, signed addresses, uploads.

Calls are `POST {base}/v1/{package.Service}/{Method}` with camelCase JSON, as `kagglesdk` 0.1 makes them; an error is an
HTTP status, or 200 with `{"code": …, "message": …}`. A download is a redirect to signed storage, which `blocks` reads.
An upload is Google's resumable one (https://cloud.google.com/storage/docs/performing-resumable-uploads): its address
and token are on disk until the data set is published, so it goes on after the process died. Of competitions only the
data is spoken of here, and models not at all.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from haversack import disk, progress
from haversack.credentials import KAGGLE, KAGGLE_SETTINGS
from haversack.errors import (
    ConnectionFailed,
    Forbidden,
    InputError,
    NotFound,
    RateLimited,
    RemoteError,
    RulesNotAccepted,
    SignInError,
)
from haversack.http import Answer, Http, error_of

_DATASETS = "datasets.DatasetApiService"
_COMPETITIONS = "competitions.CompetitionApiService"
_PIECE = 1 << 20
# How long a published version may take until Kaggle serves it, in seconds, and the longest pause between two looks.
_SETTLES_WITHIN = 900.0
_LONGEST_PAUSE = 5.0
# How long an upload may stand still, in seconds.
_PATIENCE = 180.0


@dataclass(frozen=True)
class Name:
    """A data set's name: who owns it, what it is called, which version; None is the current one."""

    owner: str
    name: str
    version: int | None = None

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}" + (f"@{self.version}" if self.version else "")

    @property
    def page(self) -> str:
        """The path of its web page."""
        return f"/datasets/{self.owner}/{self.name}"


@dataclass(frozen=True)
class Competition:
    """A competition, for its data."""

    name: str

    def __str__(self) -> str:
        return f"c/{self.name}"

    @property
    def page(self) -> str:
        return f"/competitions/{self.name}"


_PAGE = re.compile(r"https?://(?:www\.)?kaggle\.com/(datasets|competitions|c)/([^?#]+)")
_SET = re.compile(r"kaggle:([A-Za-z0-9][\w-]*)/([A-Za-z0-9][\w.-]*)(?:@([1-9][0-9]*))?((?:/[^/\0]+)*)/?", re.ASCII)


def from_page(link: str) -> str | None:
    """The source that a link to a page of kaggle.com is about; None for other links."""
    found = _PAGE.match(link)
    if not found:
        return None
    parts = found[2].strip("/").split("/")
    if found[1] != "datasets":
        return f"kaggle:c/{parts[0]}"
    version = f"@{parts[3]}" if parts[2:3] == ["versions"] and len(parts) > 3 else ""
    return f"kaggle:{'/'.join(parts[:2])}{version}"


def parsed(source: str) -> tuple[Name | Competition, str]:
    """What `kaggle:owner/name[@version][/folder]` or `kaggle:c/competition[/folder]` names, and the folder in it.

    Raises `InputError` for anything else.
    """
    found = _SET.fullmatch(source) if source.isprintable() else None
    if not found or not {".", ".."}.isdisjoint((found[4] or "").split("/")):
        raise InputError(
            f"{source!r} names no data set.",
            "Write it as kaggle:owner/name, kaggle:owner/name@3, kaggle:owner/name/folder or kaggle:c/competition.",
        )
    folder = found[4].strip("/")
    if found[1] == "c" and not found[3]:
        return Competition(found[2]), folder
    return Name(found[1], found[2], int(found[3]) if found[3] else None), folder


@dataclass(frozen=True)
class _KaggleUpload:
    """An upload in progress. Whoever has it can write into it, so it is kept like a password."""

    token: str = field(repr=False)
    url: str = field(repr=False)


@dataclass(frozen=True)
class Words:
    """What is said of a data set that is published. The first three are of a new one, `notes` of a version."""

    title: str | None = None
    licence: str | None = None
    public: bool = False
    notes: str | None = None

    @property
    def of_a_new_set(self) -> str:
        """Which of the first three are given."""
        given = {"title": self.title, "licence": self.licence, "visibility": self.public}
        return " and ".join(name for name, value in given.items() if value)


class KaggleApi:
    """Kaggle's API over `http`, whose server is Kaggle or a hub.

    Everything raises `NotFound` and `Forbidden` in the words of data sets, `SignInError`, `RateLimited`, other
    `RemoteError`, and `ConnectionFailed`.
    """

    def __init__(self, http: Http) -> None:
        self.http = http
        self._base = "/v1" if http.server.url == KAGGLE else "/api/v1"

    async def current_version(self, name: Name) -> int:
        answer = await self._call("GetDataset", name, _slugs(name))
        return int(answer.get("currentVersionNumber") or 1)

    async def about(self, name: Name | Competition) -> dict[str, Any]:
        """What its page says: `title`, `licence`, whether it is `private`, and its `page`. Costs one call."""
        if isinstance(name, Competition):
            answer = await self._call("GetCompetition", name, {"competitionName": name.name}, of=_COMPETITIONS)
            return {"title": answer.get("title") or name.name, "page": self._page(name)}
        info = (await self._call("GetDatasetMetadata", name, _slugs(name))).get("info") or {}
        licences = [one.get("name") for one in info.get("licenses") or []]
        return {
            "title": info.get("title") or name.name,
            "licence": ", ".join(filter(None, licences)) or "unknown",
            "private": bool(info.get("isPrivate")),
            "page": self._page(name),
        }

    async def download_address(self, name: Name | Competition) -> str:
        """A signed address of the whole data set's archive; it works for a while, without a sign-in."""
        if isinstance(name, Competition):
            answer = await self._send(f"{_COMPETITIONS}/DownloadDataFiles", name, {"competitionName": name.name})
        else:
            body = _slugs(name) | ({"datasetVersionNumber": name.version} if name.version else {})
            answer = await self._send(f"{_DATASETS}/DownloadDataset", name, body)
        if "Location" not in answer.headers:
            raise RemoteError(f"The {self.http.server.name} gives no address for {name}.", "Try again later.")
        return urljoin(self.http.server.url, answer.headers["Location"])

    async def publish(self, name: Name, archive: Path, words: Words, states: Path) -> tuple[int, str]:
        """Make `archive` the data set `name`, or its next version; returns the version and its web address.

        `states` is a folder for what an interrupted upload goes on from. Raises `InputError`, before anything is
        uploaded, for `words` that only a new data set takes.
        """
        before = await self._version_if_any(name)
        if before and (said := words.of_a_new_set):
            raise InputError(
                f"{name} is there already, and a version does not change its {said}.",
                f"Leave that out, and change it at {self._page(name)}/settings",
            )
        state = states / f"{await asyncio.to_thread(self._state_name, name, archive)}.json"
        token = await self._upload(archive, f"{name.name}.zip", name, state)
        answer = await self._create(name, words, token) if before == 0 else await self._add_version(name, words, token)
        if answer.get("status") == "error" or answer.get("error"):
            raise RemoteError(f"{name} was not published: {answer.get('error')}", "Change that, and publish it again.")
        state.unlink(missing_ok=True)
        return await self._settled(name, before), answer.get("url") or self._page(name)

    async def _version_if_any(self, name: Name) -> int:
        """The current version, 0 where there is no such data set yet."""
        try:
            await self._call("GetDatasetStatus", name, _slugs(name))
        except (NotFound, Forbidden):  # Kaggle says "forbidden" of names it will not talk about
            return 0
        return await self.current_version(name)

    async def _create(self, name: Name, words: Words, token: str) -> dict[str, Any]:
        body = {
            "ownerSlug": name.owner,
            "slug": name.name,
            "title": words.title or name.name,
            "licenseName": words.licence or "unknown",
            "isPrivate": not words.public,
            "files": [{"token": token}],
        }
        return await self._call("CreateDataset", name, body, again=False)

    async def _add_version(self, name: Name, words: Words, token: str) -> dict[str, Any]:
        body = {"versionNotes": words.notes or "Published by haversack", "files": [{"token": token}]}
        return await self._call("CreateDatasetVersion", name, _slugs(name) | {"body": body}, again=False)

    async def _settled(self, name: Name, before: int) -> int:
        """The new version's number, once the service serves it."""
        waited, pause = 0.0, 0.1
        while waited < _SETTLES_WITHIN:
            status = str((await self._call("GetDatasetStatus", name, _slugs(name))).get("status", "")).lower()
            if status == "failed":
                raise RemoteError(f"The {self.http.server.name} could not unpack {name}.", "Check the archive.")
            if status == "ready" and (version := await self.current_version(name)) > before:
                return version
            await asyncio.sleep(pause)
            waited, pause = waited + pause, min(pause * 2, _LONGEST_PAUSE)
        raise RemoteError(f"{name} is uploaded, but not served yet.", "Look at its page in a few minutes.")

    async def _upload(self, file: Path, called: str, name: Name, state: Path) -> str:
        """Upload `file`, going on where an earlier upload of the same bytes stopped; returns the blob's token."""
        size = file.stat().st_size
        upload, done = await self._resumed(state, size)
        if upload is None:
            upload, done = await self._start_upload(file, called, name), 0
            _write_private(state, json.dumps(asdict(upload)))
        with progress.bar(f"Uploading {name}", size) as advance:
            advance(done)
            failures = 0
            while done < size:
                before = done
                failure: Exception = ConnectionFailed(
                    f"The upload of {name} stands still.", "Put it again: it goes on."
                )
                try:
                    done = await self._put(upload, file, done, advance)
                except (ConnectionFailed, RemoteError, TimeoutError) as error:
                    if isinstance(error, RemoteError) and error.status < 500:
                        raise
                    failure = error if isinstance(error, ConnectionFailed | RemoteError) else failure
                    done = await self._stored(upload, size)
                    advance(done - before)
                failures = 0 if done > before else failures + 1
                if failures >= self.http.attempts:
                    raise failure
                if done < size:
                    await asyncio.sleep(min(self.http.longest_delay, self.http.first_delay * 2**failures))
        return upload.token

    async def _start_upload(self, file: Path, called: str, name: Name) -> _KaggleUpload:
        about = file.stat()
        body = {
            "type": "DATASET",
            "name": called,
            "contentLength": about.st_size,
            "lastModifiedEpochSeconds": int(about.st_mtime),
        }
        answer = (await self._send("blobs.BlobApiService/StartBlobUpload", name, body)).json()
        return _KaggleUpload(answer["token"], urljoin(self.http.server.url, answer["createUrl"]))

    async def _resumed(self, state: Path, size: int) -> tuple[_KaggleUpload | None, int]:
        """The upload that `state` tells of and how much of it is there; None where there is none to go on with."""
        try:
            upload = _KaggleUpload(**json.loads(state.read_text()))
            return upload, await self._stored(upload, size)
        except (FileNotFoundError, ValueError, TypeError):
            return None, 0
        except RemoteError:
            return None, 0  # the service knows it no longer: a resumable upload lives a week

    async def _stored(self, upload: _KaggleUpload, size: int) -> int:
        """How many bytes of the upload have arrived."""
        answer = await self.http.request("PUT", upload.url, data=b"", headers={"Content-Range": f"bytes */{size}"})
        return _arrived(answer, size)

    async def _put(self, upload: _KaggleUpload, file: Path, start: int, advance: progress.Advance) -> int:
        """Send the file from `start` to its end; returns how much of it has arrived."""
        size = file.stat().st_size
        headers = {"Content-Length": str(size - start), "Content-Type": "application/octet-stream"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        sent = 0
        loop = asyncio.get_running_loop()

        async def pieces() -> AsyncIterator[bytes]:
            nonlocal sent
            source = await asyncio.to_thread(open, file, "rb")
            with source:
                source.seek(start)
                while piece := await asyncio.to_thread(source.read, _PIECE):
                    yield piece
                    sent += len(piece)
                    advance(len(piece))
                    patience.reschedule(loop.time() + _PATIENCE)

        arrived = start
        try:
            async with asyncio.timeout(_PATIENCE) as patience:
                answer = await self.http.request("PUT", upload.url, data=pieces, headers=headers, again=False)
            arrived = _arrived(answer, size)
        finally:
            advance(arrived - start - sent)
        return arrived

    def _state_name(self, name: Name, archive: Path) -> str:
        with open(archive, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(f"{self.http.server.url} {name}".encode())
        return digest.hexdigest()

    def _page(self, name: Name | Competition) -> str:
        server = self.http.server.url
        return ("https://www.kaggle.com" if server == KAGGLE else server) + name.page

    async def user(self) -> str:
        """Who is signed in, by one call that nobody else is answered. Raises `SignInError` where that is refused."""
        server = self.http.server
        try:
            if server.kaggle_login is not None:
                await self._answered(
                    f"{_DATASETS}/ListDatasets", {"group": "DATASET_SELECTION_GROUP_MY", "pageSize": 1}
                )
                return server.kaggle_login[0]
            asked = {"token": server.secrets[0]}
            answer = (await self._answered("security.OAuthService/IntrospectToken", asked)).json()
        except (SignInError, Forbidden) as error:
            raise self._refused() from error
        if not answer.get("active"):
            raise self._refused()
        return str(answer.get("username") or "")

    async def _call(
        self, method: str, name: Name | Competition, body: dict[str, Any], *, again: bool = True, of: str = _DATASETS
    ) -> dict[str, Any]:
        return (await self._send(f"{of}/{method}", name, body, again=again)).json()

    async def _send(self, method: str, name: Name | Competition, body: dict[str, Any], *, again: bool = True) -> Answer:
        try:
            return await self._answered(method, body, again=again)
        except (RemoteError, SignInError) as error:
            raise self._told(error, name) from error

    async def _answered(self, method: str, body: dict[str, Any], *, again: bool = True) -> Answer:
        answer = await self.http.request("POST", f"{self._base}/{method}", json=body, again=again)
        if (code := _error_code(answer)) is not None:
            raise error_of(Answer(code, answer.headers, answer.body), self.http.server.name)
        return answer

    def _refused(self) -> SignInError:
        server = self.http.server
        step = f"Make a new token at {KAGGLE_SETTINGS}, then: haversack login kaggle"
        return SignInError(
            f"The {server.name} refused the sign-in of {server.source}.",
            step if server.name == "Kaggle service" else "Renew it there.",
        )

    def _told(self, error: RemoteError | SignInError, name: Name | Competition) -> RemoteError | SignInError:
        """The error in the words of data sets, with the link to click and the sign-in that was used."""
        server, page = self.http.server, self._page(name)
        kind = "competition" if isinstance(name, Competition) else "data set"
        signed_in = f"signed in by {server.source}" if server.authorization else "signed in as nobody"
        if isinstance(error, SignInError):
            return self._refused()
        about: dict[str, Any] = {"status": error.status, "reason": error.reason}
        if isinstance(error, NotFound):
            return NotFound(
                f"There is no {kind} {name} on the {server.name}.", f"Check its name and version: {page}", **about
            )
        if isinstance(error, Forbidden) and "rules" in error.what.lower():
            return RulesNotAccepted(
                f"The rules of {name} are not accepted by who is {signed_in}.",
                f"Accept them at {page}{'/rules' if kind == 'competition' else ''} and try again.",
                **about,
            )
        if isinstance(error, Forbidden):
            return Forbidden(
                f"The {kind} {name} is private or does not exist, for who is {signed_in}.",
                f"Open {page} in a browser, or ask its owner for access.",
                **about,
            )
        if isinstance(error, RateLimited):
            return RateLimited(
                f"The {server.name} takes no more calls for now, {signed_in}.",
                f"Wait some minutes and try again: it goes on. Whether it is up: {page}",
                **about,
            )
        return error


def _slugs(name: Name) -> dict[str, Any]:
    return {"ownerSlug": name.owner, "datasetSlug": name.name}


def _error_code(answer: Answer) -> int | None:
    """The error in an answer of status 200, where there is one."""
    if answer.status != 200:
        return None
    code = answer.json().get("code")
    return code if isinstance(code, int) and code >= 400 else None


def _arrived(answer: Answer, size: int) -> int:
    if answer.status != 308:
        return size
    found = re.fullmatch(r"bytes=0-(\d+)", answer.headers.get("Range", ""))
    return int(found[1]) + 1 if found else 0


def _write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read; it is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    disk.write(path, text, private=True)
