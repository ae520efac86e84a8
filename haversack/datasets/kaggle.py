"""A client of Kaggle's API for data sets: source names, versions, download addresses, publication.

Calls are `POST {base}/v1/{package.Service}/{Method}` with camelCase JSON, as the official client `kagglesdk` 0.1 makes
them. An error is an HTTP status, or status 200 with `{"code": …, "message": …}`. A download is a redirect to a signed
storage address, which `blocks` reads. An upload is a resumable upload of Google Cloud Storage
(https://cloud.google.com/storage/docs/performing-resumable-uploads). Its address and token are stored on disk until the
data set is published, so another process can resume it. Of competitions only the data is supported; models are not.
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
_PIECE_SIZE = 1 << 20
# Seconds until Kaggle must serve a published version, and the longest pause between two polls.
_PUBLISH_TIMEOUT = 900.0
_LONGEST_PAUSE = 5.0
# Seconds without progress after which a request of an upload fails.
_STALL_TIMEOUT = 180.0


@dataclass(frozen=True)
class DatasetName:
    """The name of a data set on Kaggle or a hub.

    Attributes:
        owner, name: as in the address of its page, /datasets/OWNER/NAME.
        version: from 1; None for the current one.
    """

    owner: str
    name: str
    version: int | None = None

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}" + (f"@{self.version}" if self.version else "")

    @property
    def page(self) -> str:
        """The path of the data set's web page below the server's address: "/datasets/OWNER/NAME"."""
        return f"/datasets/{self.owner}/{self.name}"


@dataclass(frozen=True)
class Competition:
    """A competition on Kaggle or a hub, whose data is a data set without versions.

    Attributes:
        name: as in the address of its page, /competitions/NAME.
    """

    name: str

    def __str__(self) -> str:
        return f"c/{self.name}"

    @property
    def page(self) -> str:
        """The path of the competition's web page below the server's address: "/competitions/NAME"."""
        return f"/competitions/{self.name}"


_PAGE = re.compile(r"https?://(?:www\.)?kaggle\.com/(datasets|competitions|c)/([^?#]+)")
_SET = re.compile(r"kaggle:([A-Za-z0-9][\w-]*)/([A-Za-z0-9][\w.-]*)(?:@([1-9][0-9]*))?((?:/[^/\0]+)*)/?", re.ASCII)


def source_of_page(link: str) -> str | None:
    """Return the source of a link to a page of a data set or competition on kaggle.com, or None for other links.

    The source is `kaggle:owner/name`, with `@version` if the link has one, or `kaggle:c/competition`.
    """
    found = _PAGE.match(link)
    if not found:
        return None
    parts = found[2].strip("/").split("/")
    if found[1] != "datasets":
        return f"kaggle:c/{parts[0]}"
    version = f"@{parts[3]}" if parts[2:3] == ["versions"] and len(parts) > 3 else ""
    return f"kaggle:{'/'.join(parts[:2])}{version}"


def parse_source(source: str) -> tuple[DatasetName | Competition, str]:
    """Parse `kaggle:owner/name[@version][/folder]` or `kaggle:c/competition[/folder]`.

    Returns the name, and the folder or "". Raises `InputError` for anything else.
    """
    found = _SET.fullmatch(source) if source.isprintable() else None
    if not found or not {".", ".."}.isdisjoint((found[4] or "").split("/")):
        raise InputError(
            f"{source!r} names no data set.",
            "Use kaggle:owner/name, kaggle:owner/name@3, kaggle:owner/name/folder or kaggle:c/competition.",
        )
    folder = found[4].strip("/")
    if found[1] == "c" and not found[3]:
        return Competition(found[2]), folder
    return DatasetName(found[1], found[2], int(found[3]) if found[3] else None), folder


@dataclass(frozen=True)
class _KaggleUpload:
    """An upload in progress. Both fields are secret: they let anyone write to the upload without a sign-in.

    Attributes:
        token: identifies the uploaded file in the call that publishes it.
        url: where its bytes are sent.
    """

    token: str = field(repr=False)
    url: str = field(repr=False)


@dataclass(frozen=True)
class DatasetMetadata:
    """What a publication says about a data set.

    Attributes:
        title: of a new data set; None for its name.
        licence: of a new data set, by Kaggle's name, such as CC0-1.0; None for "unknown".
        public: whether everybody may see a new data set.
        notes: what is new in a version; not used for a new data set. None for "Published by haversack".
    """

    title: str | None = None
    licence: str | None = None
    public: bool = False
    notes: str | None = None

    @property
    def fields_of_new_dataset(self) -> str:
        """The fields for a new data set that are set, as words, such as "title and visibility"; "" if none is."""
        given = {"title": self.title, "licence": self.licence, "visibility": self.public}
        return " and ".join(name for name, value in given.items() if value)


class KaggleApi:
    """A client of Kaggle's API; requests go through `http`, whose server is Kaggle or a hub.

    Methods are coroutines for the event loop of `http`. They raise `NotFound`, `Forbidden`, `RulesNotAccepted`,
    `RateLimited`, or another `RemoteError` for an error answer, `SignInError` if the sign-in is refused, and
    `ConnectionFailed` if the server does not answer.
    """

    def __init__(self, http: Http) -> None:
        self.http = http
        self._base = "/v1" if http.server.url == KAGGLE else "/api/v1"

    async def current_version(self, name: DatasetName) -> int:
        """Return the number of the data set's current version."""
        answer = await self._call("GetDataset", name, _slugs(name))
        return int(answer.get("currentVersionNumber") or 1)

    async def sources_named(self, name: str) -> list[str]:
        """Return the sources of the competition called `name`, if there is one, and of the data sets called so."""
        try:
            await self._call("GetCompetition", Competition(name), {"competitionName": name}, service=_COMPETITIONS)
            found = [f"kaggle:c/{name}"]
        except RemoteError:
            found = []
        answer = (await self._request(f"{_DATASETS}/ListDatasets", {"search": name, "pageSize": 50})).json()
        references = [str(one.get("ref", "")) for one in answer.get("datasets") or []]
        named = (ref for ref in references if ref.lower().endswith(f"/{name.lower()}") and not ref.startswith("c/"))
        return [*found, *(f"kaggle:{ref}" for ref in named)]

    async def about(self, name: DatasetName | Competition) -> dict[str, Any]:
        """Return the metadata of a data set or competition, by one call.

        The keys are `title` and `page` (the address of its web page), of a data set also `licence` (Kaggle's name, or
        "unknown") and `private` (a boolean).
        """
        if isinstance(name, Competition):
            answer = await self._call("GetCompetition", name, {"competitionName": name.name}, service=_COMPETITIONS)
            return {"title": answer.get("title") or name.name, "page": self._page(name)}
        info = (await self._call("GetDatasetMetadata", name, _slugs(name))).get("info") or {}
        licences = [one.get("name") for one in info.get("licenses") or []]
        return {
            "title": info.get("title") or name.name,
            "licence": ", ".join(filter(None, licences)) or "unknown",
            "private": bool(info.get("isPrivate")),
            "page": self._page(name),
        }

    async def download_address(self, name: DatasetName | Competition) -> str:
        """Return a signed address of the data set's archive, of `name.version` or else the current version.

        A GET of the address needs no sign-in. It expires after a time that the server chooses.
        """
        if isinstance(name, Competition):
            answer = await self._send(f"{_COMPETITIONS}/DownloadDataFiles", name, {"competitionName": name.name})
        else:
            body = _slugs(name) | ({"datasetVersionNumber": name.version} if name.version else {})
            answer = await self._send(f"{_DATASETS}/DownloadDataset", name, body)
        if "Location" not in answer.headers:
            raise RemoteError(
                f"The {self.http.server.name} returned no download address for {name}.", "Try again later."
            )
        return urljoin(self.http.server.url, answer.headers["Location"])

    async def publish(
        self, name: DatasetName, archive: Path, metadata: DatasetMetadata, states: Path
    ) -> tuple[int, str]:
        """Publish the zip file `archive` as the new data set `name`, or as its next version.

        An upload of the same bytes that was interrupted is resumed.

        Args:
            name: the data set; its `version` is not used.
            archive: the zip file.
            metadata: see `DatasetMetadata`.
            states: a folder for the state files of interrupted uploads, which are secret; created if it is missing.

        Returns the version's number, once the server serves it, and the address of the data set's page. Raises
        `InputError` before the upload if the data set exists and `metadata` has fields for a new one only, and
        `RemoteError` if the server cannot unpack the archive or does not serve it within 15 minutes.
        """
        before = await self._version_if_any(name)
        if before and (given := metadata.fields_of_new_dataset):
            raise InputError(
                f"{name} exists already, and a new version does not change its {given}.",
                f"Leave that out, and change it at {self._page(name)}/settings",
            )
        state = states / f"{await asyncio.to_thread(self._state_name, name, archive)}.json"
        token = await self._upload(archive, f"{name.name}.zip", name, state)
        create = self._create if before == 0 else self._add_version
        answer = await create(name, metadata, token)
        if answer.get("status") == "error" or answer.get("error"):
            raise RemoteError(f"{name} was not published: {answer.get('error')}", "Correct that, and publish it again.")
        state.unlink(missing_ok=True)
        return await self._wait_until_served(name, before), answer.get("url") or self._page(name)

    async def _version_if_any(self, name: DatasetName) -> int:
        """Return the current version, or 0 if there is no such data set yet."""
        try:
            await self._call("GetDatasetStatus", name, _slugs(name))
        except (NotFound, Forbidden):  # Kaggle answers "forbidden" for some names that do not exist
            return 0
        return await self.current_version(name)

    async def _create(self, name: DatasetName, metadata: DatasetMetadata, token: str) -> dict[str, Any]:
        body = {
            "ownerSlug": name.owner,
            "slug": name.name,
            "title": metadata.title or name.name,
            "licenseName": metadata.licence or "unknown",
            "isPrivate": not metadata.public,
            "files": [{"token": token}],
        }
        return await self._call("CreateDataset", name, body, retry=False)

    async def _add_version(self, name: DatasetName, metadata: DatasetMetadata, token: str) -> dict[str, Any]:
        body = {"versionNotes": metadata.notes or "Published by haversack", "files": [{"token": token}]}
        return await self._call("CreateDatasetVersion", name, _slugs(name) | {"body": body}, retry=False)

    async def _wait_until_served(self, name: DatasetName, before: int) -> int:
        """Poll until the server serves a version after `before`, and return its number.

        Raises `RemoteError` if the server could not unpack it, or does not serve it within `_PUBLISH_TIMEOUT` seconds.
        """
        waited, pause = 0.0, 0.1
        while waited < _PUBLISH_TIMEOUT:
            status = str((await self._call("GetDatasetStatus", name, _slugs(name))).get("status", "")).lower()
            if status == "failed":
                raise RemoteError(
                    f"The {self.http.server.name} could not unpack {name}.", "Check the archive, and publish it again."
                )
            if status == "ready" and (version := await self.current_version(name)) > before:
                return version
            await asyncio.sleep(pause)
            waited, pause = waited + pause, min(pause * 2, _LONGEST_PAUSE)
        raise RemoteError(f"{name} is uploaded, but not served yet.", f"Check {self._page(name)} in a few minutes.")

    async def _upload(self, file: Path, file_name: str, name: DatasetName, state: Path) -> str:
        """Upload `file` under `file_name`; return the blob's token.

        An upload whose state is in the file `state` is resumed. A request that fails is retried with backoff,
        until `http.attempts` requests in a row make no progress; then the last failure is raised.
        """
        size = file.stat().st_size
        upload, done = await self._load_upload(state, size)
        if upload is None:
            upload, done = await self._start_upload(file, file_name, name), 0
            _write_private(state, json.dumps(asdict(upload)))
        with progress.bar(f"Uploading {name}", size) as advance:
            advance(done)
            failures = 0
            while done < size:
                before = done
                failure: Exception = ConnectionFailed(
                    f"The upload of {name} makes no progress.", "Publish it again: the upload is resumed."
                )
                try:
                    done = await self._send_from(upload, file, done, advance)
                except (ConnectionFailed, RemoteError, TimeoutError) as error:
                    if isinstance(error, RemoteError) and error.status < 500:
                        raise
                    failure = error if isinstance(error, ConnectionFailed | RemoteError) else failure
                    done = await self._query_received(upload, size)
                    advance(done - before)
                failures = 0 if done > before else failures + 1
                if failures >= self.http.attempts:
                    raise failure
                if done < size:
                    await asyncio.sleep(min(self.http.longest_delay, self.http.first_delay * 2**failures))
        return upload.token

    async def _start_upload(self, file: Path, file_name: str, name: DatasetName) -> _KaggleUpload:
        about = file.stat()
        body = {
            "type": "DATASET",
            "name": file_name,
            "contentLength": about.st_size,
            "lastModifiedEpochSeconds": int(about.st_mtime),
        }
        answer = (await self._send("blobs.BlobApiService/StartBlobUpload", name, body)).json()
        return _KaggleUpload(answer["token"], urljoin(self.http.server.url, answer["createUrl"]))

    async def _load_upload(self, state: Path, size: int) -> tuple[_KaggleUpload | None, int]:
        """Return the upload in the file `state` and the bytes that the server has of it; (None, 0) if there is none."""
        try:
            upload = _KaggleUpload(**json.loads(state.read_text()))
            return upload, await self._query_received(upload, size)
        except (FileNotFoundError, ValueError, TypeError):
            return None, 0
        except RemoteError:
            return None, 0  # expired: a resumable upload is valid for a week

    async def _query_received(self, upload: _KaggleUpload, size: int) -> int:
        """Ask the server how many of the upload's `size` bytes it has."""
        answer = await self.http.request("PUT", upload.url, data=b"", headers={"Content-Range": f"bytes */{size}"})
        return _bytes_received(answer, size)

    async def _send_from(self, upload: _KaggleUpload, file: Path, start: int, advance: progress.Advance) -> int:
        """Send the bytes of `file` from `start` to its end in one request; return how many bytes the server has then.

        Raises `TimeoutError` if no byte is sent for `_STALL_TIMEOUT` seconds.
        """
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
                while piece := await asyncio.to_thread(source.read, _PIECE_SIZE):
                    yield piece
                    sent += len(piece)
                    advance(len(piece))
                    stall.reschedule(loop.time() + _STALL_TIMEOUT)

        received = start
        try:
            async with asyncio.timeout(_STALL_TIMEOUT) as stall:
                answer = await self.http.request("PUT", upload.url, data=pieces, headers=headers, repeatable=False)
            received = _bytes_received(answer, size)
        finally:
            advance(received - start - sent)
        return received

    def _state_name(self, name: DatasetName, archive: Path) -> str:
        """Return the state file's name: a hash of the archive's bytes, the server and the data set."""
        with open(archive, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(f"{self.http.server.url} {name}".encode())
        return digest.hexdigest()

    def _page(self, name: DatasetName | Competition) -> str:
        """Return the address of the web page."""
        server = self.http.server.url
        return ("https://www.kaggle.com" if server == KAGGLE else server) + name.page

    async def user(self) -> str:
        """Return the user name of the sign-in; "" if the server does not name it.

        One call checks the sign-in, and raises `SignInError` if the server refuses it.
        """
        server = self.http.server
        try:
            if server.kaggle_login is not None:
                await self._request(f"{_DATASETS}/ListDatasets", {"group": "DATASET_SELECTION_GROUP_MY", "pageSize": 1})
                return server.kaggle_login[0]
            asked = {"token": server.secrets[0]}
            answer = (await self._request("security.OAuthService/IntrospectToken", asked)).json()
        except (SignInError, Forbidden) as error:
            raise self._refused() from error
        if not answer.get("active"):
            raise self._refused()
        return str(answer.get("username") or "")

    async def _call(
        self,
        method: str,
        name: DatasetName | Competition,
        body: dict[str, Any],
        *,
        retry: bool = True,
        service: str = _DATASETS,
    ) -> dict[str, Any]:
        """Call a method of `service` and return its JSON; see `_send`."""
        return (await self._send(f"{service}/{method}", name, body, retry=retry)).json()

    async def _send(
        self, method: str, name: DatasetName | Competition, body: dict[str, Any], *, retry: bool = True
    ) -> Answer:
        """Call `Service/Method`; raise errors whose messages name the data set `name`. `retry` allows retries."""
        try:
            return await self._request(method, body, retry=retry)
        except (RemoteError, SignInError) as error:
            raise self._explained(error, name) from error

    async def _request(self, method: str, body: dict[str, Any], *, retry: bool = True) -> Answer:
        """Call `Service/Method`; raise the error that `http.error_of` makes of an error answer, also of status 200."""
        answer = await self.http.request("POST", f"{self._base}/{method}", json=body, repeatable=retry)
        if (code := _error_code(answer)) is not None:
            raise error_of(Answer(code, answer.headers, answer.body), self.http.server.name)
        return answer

    def _refused(self) -> SignInError:
        server = self.http.server
        step = f"Make a new token at {KAGGLE_SETTINGS}, then: haversack login kaggle"
        return SignInError(
            f"The {server.name} refused the sign-in of {server.source}.",
            step if server.name == "Kaggle service" else "Renew it there, and try again.",
        )

    def _explained(
        self, error: RemoteError | SignInError, name: DatasetName | Competition
    ) -> RemoteError | SignInError:
        """Return the error with a message that names the data set, its page, and the sign-in that was used."""
        server, page = self.http.server, self._page(name)
        kind = "competition" if isinstance(name, Competition) else "data set"
        account = f"the account signed in by {server.source}" if server.authorization else "anonymous users"
        if isinstance(error, SignInError):
            return self._refused()
        about: dict[str, Any] = {"status": error.status, "reason": error.reason}
        if isinstance(error, NotFound):
            return NotFound(
                f"There is no {kind} {name} on the {server.name}.", f"Check its name and version: {page}", **about
            )
        if isinstance(error, Forbidden) and "rules" in error.what.lower():
            return RulesNotAccepted(
                f"The rules of {name} are not accepted for {account}.",
                f"Accept them at {page}{'/rules' if kind == 'competition' else ''} and try again.",
                **about,
            )
        if isinstance(error, Forbidden):
            return Forbidden(
                f"The {kind} {name} is private or does not exist; {account} cannot see it.",
                f"Open {page} in a browser, or ask its owner for access.",
                **about,
            )
        if isinstance(error, RateLimited):
            return RateLimited(
                f"The {server.name} has reached its rate limit for {account}.",
                f"Wait some minutes and try again: transfers are resumed. To see whether it is up: {page}",
                **about,
            )
        return error


def _slugs(name: DatasetName) -> dict[str, Any]:
    return {"ownerSlug": name.owner, "datasetSlug": name.name}


def _error_code(answer: Answer) -> int | None:
    """Return the error code in the body of an answer of status 200, or None."""
    if answer.status != 200:
        return None
    code = answer.json().get("code")
    return code if isinstance(code, int) and code >= 400 else None


def _bytes_received(answer: Answer, size: int) -> int:
    """Return how many bytes of an upload the server has, by the answer to one of its PUTs."""
    if answer.status != 308:
        return size
    found = re.fullmatch(r"bytes=0-(\d+)", answer.headers.get("Range", ""))
    return int(found[1]) + 1 if found else 0


def _write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, by atomic replace; create its folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    disk.write(path, text, private=True)
