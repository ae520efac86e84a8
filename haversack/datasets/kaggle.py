"""Our own small client of Kaggle's API: versions, signed addresses, uploads.

Calls are `POST {base}/v1/{package.Service}/{Method}` with camelCase JSON, as `kagglesdk` 0.1 makes them; an error is an
HTTP status, or 200 with `{"code": …, "message": …}`. A download is a redirect to signed storage, which `blocks` reads.
An upload is Google's resumable one (https://cloud.google.com/storage/docs/performing-resumable-uploads): its address
and token are on disk until the data set is published, so it goes on after the process died. Only data sets are spoken
of here, not competitions and models.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from haversack import progress
from haversack.credentials import KAGGLE
from haversack.errors import ConnectionFailed, Forbidden, InputError, NotFound, RemoteError, SignInError
from haversack.http import Answer, Http, error_of

_DATASETS = "datasets.DatasetApiService"
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

    @classmethod
    def parse(cls, source: str) -> Name:
        """The name in `kaggle:owner/name[@version]`. Raises `InputError` for anything else."""
        found = re.fullmatch(r"kaggle:([A-Za-z0-9][\w-]*)/([A-Za-z0-9][\w.-]*)(?:@([1-9][0-9]*))?", source, re.ASCII)
        if not found:
            raise InputError(f"{source!r} names no data set.", "Write it as kaggle:owner/name or kaggle:owner/name@3.")
        return cls(found[1], found[2], int(found[3]) if found[3] else None)


@dataclass(frozen=True)
class _Upload:
    """An upload in progress. Whoever has it can write into it, so it is kept like a password."""

    token: str = field(repr=False)
    url: str = field(repr=False)


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

    async def download_address(self, name: Name) -> str:
        """A signed address of the whole data set's archive; it works for a while, without a sign-in."""
        body = _slugs(name) | ({"datasetVersionNumber": name.version} if name.version else {})
        answer = await self._send(f"{_DATASETS}/DownloadDataset", name, body)
        if "Location" not in answer.headers:
            raise RemoteError(f"The {self.http.server.name} gives no address for {name}.", "Try again later.")
        return urljoin(self.http.server.url, answer.headers["Location"])

    async def publish(self, name: Name, archive: Path, title: str | None, states: Path) -> tuple[int, str]:
        """Make `archive` the data set `name` (private), or its next version; returns the version and its web address.

        `states` is a folder for what an interrupted upload goes on from.
        """
        before = await self._version_if_any(name)
        state = states / f"{await asyncio.to_thread(self._state_name, name, archive)}.json"
        token = await self._upload(archive, f"{name.name}.zip", name, state)
        answer = await self._create(name, title, token) if before == 0 else await self._add_version(name, token)
        if answer.get("status") == "error" or answer.get("error"):
            raise RemoteError(f"{name} was not published: {answer.get('error')}", "Change that, and publish it again.")
        state.unlink(missing_ok=True)
        url = answer.get("url") or f"{self.http.server.url.replace('//api.', '//www.')}/datasets/{name}"
        return await self._settled(name, before), url

    async def _version_if_any(self, name: Name) -> int:
        """The current version, 0 where there is no such data set yet."""
        try:
            await self._call("GetDatasetStatus", name, _slugs(name))
        except (NotFound, Forbidden):  # Kaggle says "forbidden" of names it will not talk about
            return 0
        return await self.current_version(name)

    async def _create(self, name: Name, title: str | None, token: str) -> dict[str, Any]:
        body = {
            "ownerSlug": name.owner,
            "slug": name.name,
            "title": title or name.name,
            "licenseName": "unknown",
            "isPrivate": True,
            "files": [{"token": token}],
        }
        return await self._call("CreateDataset", name, body, again=False)

    async def _add_version(self, name: Name, token: str) -> dict[str, Any]:
        body = {"versionNotes": "Published by haversack", "files": [{"token": token}]}
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

    async def _start_upload(self, file: Path, called: str, name: Name) -> _Upload:
        about = file.stat()
        body = {
            "type": "DATASET",
            "name": called,
            "contentLength": about.st_size,
            "lastModifiedEpochSeconds": int(about.st_mtime),
        }
        answer = (await self._send("blobs.BlobApiService/StartBlobUpload", name, body)).json()
        return _Upload(answer["token"], urljoin(self.http.server.url, answer["createUrl"]))

    async def _resumed(self, state: Path, size: int) -> tuple[_Upload | None, int]:
        """The upload that `state` tells of and how much of it is there; None where there is none to go on with."""
        try:
            upload = _Upload(**json.loads(state.read_text()))
            return upload, await self._stored(upload, size)
        except (FileNotFoundError, ValueError, TypeError):
            return None, 0
        except RemoteError:
            return None, 0  # the service knows it no longer: a resumable upload lives a week

    async def _stored(self, upload: _Upload, size: int) -> int:
        """How many bytes of the upload have arrived."""
        answer = await self.http.request("PUT", upload.url, data=b"", headers={"Content-Range": f"bytes */{size}"})
        return _arrived(answer, size)

    async def _put(self, upload: _Upload, file: Path, start: int, advance: progress.Advance) -> int:
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

    async def _call(self, method: str, name: Name, body: dict[str, Any], *, again: bool = True) -> dict[str, Any]:
        return (await self._send(f"{_DATASETS}/{method}", name, body, again=again)).json()

    async def _send(self, method: str, name: Name, body: dict[str, Any], *, again: bool = True) -> Answer:
        server = self.http.server
        try:
            answer = await self.http.request("POST", f"{self._base}/{method}", json=body, again=again)
            if (code := _error_code(answer)) is not None:
                raise error_of(Answer(code, answer.headers, answer.body), server.name)
        except NotFound as error:
            raise NotFound(
                f"There is no data set {name} on the {server.name}.",
                "Check its owner, its name and its version.",
                status=404,
                reason=error.reason,
            ) from error
        except Forbidden as error:
            raise Forbidden(
                f"The data set {name} is private, does not exist, or has rules to accept first.",
                f"Open its page as the user of {server.source}, or ask its owner for access.",
                status=403,
                reason=error.reason,
            ) from error
        except SignInError as error:
            raise SignInError(
                f"The {server.name} refused the sign-in of {server.source}.", "Renew it there."
            ) from error
        return answer


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
    aside = path.with_suffix(f".{os.getpid()}")
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
