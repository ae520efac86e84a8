"""Fetch a notebook from an address, check that it is one, and say when it cannot be had.

Nothing is executed, and nothing is written. A fetched file is at most `MAX_BYTES` long. Whoever serves the file gets
the user's sign-in only if it is the drive's or Kaggle's own service.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import IO, Any
from urllib.parse import urlsplit

import aiohttp

from haversack import credentials, progress, settings
from haversack.credentials import KAGGLE, Server
from haversack.errors import (
    ConnectionFailed,
    Forbidden,
    HaversackError,
    InputError,
    NotebookInvalid,
    NotFound,
    RemoteError,
    SignInError,
)
from haversack.http import Http, wait
from haversack.notebook.sources.addresses import Address, name_of, parse, shown
from haversack.route import origin

MAX_BYTES = 200 * 10**6
"""The longest notebook that is fetched. GitHub shows none that is longer than half of that."""
_GISTS = "https://api.github.com/gists"
_PULL = "kernels.KernelsApiService/GetKernel"
_BY_HAND = "Download the notebook in a browser, and give the file's path."


@dataclass(frozen=True)
class FetchedNotebook:
    """A notebook that was fetched.

    Attributes:
        content: the bytes of its file.
        name: the name of its file.
        is_own: whether it comes from a place that only the user writes to.
    """

    content: bytes
    name: str
    is_own: bool = False


def fetch(address: Address, hub: str | None) -> FetchedNotebook:
    """Fetch the notebook at `address`, of any kind but "path".

    `hub` is a hub's URL, "google", "embedded", or None for the user's choice; it serves drive and Kaggle. Raises
    `NotFound`, `Forbidden`, `SignInError`, `RateLimited` or another `RemoteError` if it cannot be had,
    `ConnectionFailed` if nobody answers, `NotebookInvalid` if it is too long or is no notebook, and `InputError` if
    several could be meant.
    """
    fetchers: dict[str, Callable[[Address, str | None], FetchedNotebook]] = {
        "input": _from_input,
        "url": _from_url,
        "gist": _from_gist,
        "drive": _from_drive,
        "drive file": _from_drive_file,
        "kaggle": _from_kaggle,
        "store": _from_store,
    }
    found = fetchers[address.kind](address, hub)
    check(found.content, shown(address.target) if address.kind != "input" else "The standard input")
    return found


def check(content: bytes, where: str) -> None:
    """Raise `NotebookInvalid` if `content`, which is at `where`, is not JSON with the fields of a notebook."""
    if _is_page(content):
        raise NotebookInvalid(
            f"{where} is a web page, not a notebook; it may ask for a sign-in, or show the file in a page of its own.",
            "Give the address of the .ipynb file itself (Raw, Download), or download it and give its path.",
        )
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("nbformat"), int):
        raise NotebookInvalid(f"{where} is not a notebook.", "Give the address of an .ipynb file.")


def _is_page(content: bytes) -> bool:
    """Whether `content` is HTML."""
    return content.lstrip()[:1] == b"<"


# Web pages


def _from_url(address: Address, hub: str | None) -> FetchedNotebook:
    content, where = _content(address.target)
    name = address.name or name_of(where)
    if _is_page(content) and where != address.target:
        # A short link, which redirects to the notebook's page. Whoever made it chose the notebook.
        behind = parse(where)
        if behind.kind != "url":
            return replace(fetch(behind, hub), is_own=False)
        content, name = _content(behind.target)[0], behind.name
    return FetchedNotebook(content, name)


def _from_gist(address: Address, hub: str | None) -> FetchedNotebook:
    about, _ = _content(f"{_GISTS}/{address.target}")
    try:
        files = {str(name): str(file["raw_url"]) for name, file in json.loads(about)["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RemoteError(f"{_GISTS} does not describe the gist {address.target}.", _BY_HAND) from None
    name = chosen_file(list(files), address)
    return FetchedNotebook(_content(files[name])[0], name)


def chosen_file(names: list[str], address: Address) -> str:
    """Return which of the files `names` of a gist is the notebook that `address` means.

    Raises `NotFound` if there is none, and `InputError` if there are several.
    """
    wanted = address.name
    found = [name for name in names if wanted in (name, f"file-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}")]
    found = found or ([] if "." in wanted else [name for name in names if name.endswith(".ipynb")])
    if not found:
        raise NotFound(f"The gist {address.target} has no notebook {wanted}".rstrip() + ".", "Check its address.")
    if len(found) > 1:
        raise InputError(
            f"The gist {address.target} has {len(found)} notebooks: {', '.join(found)}.",
            f"Add one's name to the address: https://gist.github.com/USER/{address.target}/{found[0]}",
        )
    return found[0]


def _content(url: str) -> tuple[bytes, str]:
    """Return what a URL leads to, without any sign-in, and the URL where redirects end."""
    server = Server("server", origin_url(url), "nobody")
    try:
        return _read(server, url)
    except NotFound:
        raise NotFound(
            f"There is no file at {shown(url)}.", f"Check the address. If its page is private: {_BY_HAND.lower()}"
        ) from None
    except (SignInError, Forbidden):
        raise SignInError(f"{shown(url)} wants a sign-in.", _BY_HAND) from None


def origin_url(url: str) -> str:
    """The scheme, host and port of a URL. Raises `InputError` if it has no host."""
    parts = urlsplit(url)
    try:
        origin(url)  # checks the port
        host = parts.hostname
    except ValueError:
        host = None
    if not host:
        raise InputError(f"{shown(url)!r} is not a valid address.", "Copy it again from the browser.")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _read(server: Server, url: str, params: dict[str, str | int] | None = None) -> tuple[bytes, str]:
    """GET `url`, a path of the server or a whole URL; return its body, and the URL where redirects end.

    Raises what `Http.stream` raises, `RemoteError` for a redirect to nowhere, and `NotebookInvalid` if it is too long.
    """

    async def read() -> tuple[bytes, str]:
        http = Http(server, attempts=3)
        try:
            async with http.stream("GET", url, params=params) as response:
                if response.status >= 300:
                    raise RemoteError(
                        f"{shown(url)} redirects, but does not say where to.", _BY_HAND, status=response.status
                    )
                if (response.content_length or 0) > MAX_BYTES:
                    raise _too_long(url)
                pieces, size = [], 0
                async for piece in response.content.iter_any():
                    pieces.append(piece)
                    size += len(piece)
                    if size > MAX_BYTES:
                        raise _too_long(url)
                return b"".join(pieces), str(response.url)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            if isinstance(error, HaversackError):
                raise
            raise ConnectionFailed(
                f"{shown(url)} could not be fetched: {str(error).rstrip('.') or type(error).__name__}.",
                "Check the address, and try again.",
            ) from error
        finally:
            await http.close()

    return wait(read())


def _too_long(where: str) -> NotebookInvalid:
    return NotebookInvalid(
        f"{shown(where)} is longer than {progress.size(MAX_BYTES)}, so it is not fetched as a notebook.",
        "Clear its outputs, or download it and give its path.",
    )


# The user's own services


def _from_drive(address: Address, hub: str | None) -> FetchedNotebook:
    from haversack.drive.filesystem import DriveFileSystem

    filesystem = DriveFileSystem(hub=hub)
    if filesystem.info(address.target)["size"] > MAX_BYTES:
        raise _too_long(address.target)
    name = address.target.rpartition("/")[2]
    return FetchedNotebook(filesystem.cat_file(address.target), name, is_own=True)


def _from_drive_file(address: Address, hub: str | None) -> FetchedNotebook:
    """Fetch a file by its id. It is the user's own only if the user owns it: others may write to what they share."""
    from haversack.drive.remote import calls

    server = credentials.drive(hub)
    path = f"{calls.FILES}/{address.target}"
    fields: dict[str, str | int] = {"fields": "name,ownedByMe", "supportsAllDrives": "true"}
    try:
        about: dict[str, Any] = json.loads(_read(server, path, fields)[0])
        content, _ = _read(server, path, {"alt": "media", "supportsAllDrives": "true"})
    except NotFound:
        raise NotFound(
            f"The {server.name} has no file {address.target} that {_signed_in(server)} may read.",
            "Sign in as somebody who can open it (haversack login google), or open it in a browser and download it.",
        ) from None
    return FetchedNotebook(content, str(about.get("name") or address.target), is_own=about.get("ownedByMe") is True)


def _signed_in(server: Server) -> str:
    return "nobody" if server.source == "nobody" else f"the sign-in by {server.source}"


def _from_kaggle(address: Address, hub: str | None) -> FetchedNotebook:
    owner, slug = address.target.split("/", 1)
    server = _kaggle_server(address.target, hub)
    base = "/v1" if server.url == KAGGLE else "/api/v1"

    async def pull() -> dict[str, Any]:
        http = Http(server, attempts=3)
        try:
            body = {"userName": owner, "kernelSlug": slug}
            return (await http.request("POST", f"{base}/{_PULL}", json=body, repeatable=True)).json()
        finally:
            await http.close()

    try:
        blob = wait(pull()).get("blob") or {}
    except (NotFound, Forbidden):
        raise NotFound(
            f"The {server.name} has no notebook {address.target} that {_signed_in(server)} may read.",
            f"Check it in a browser: https://www.kaggle.com/code/{address.target}",
        ) from None
    return FetchedNotebook(_kaggle_source(blob, address.target), f"{blob.get('slug') or slug}.ipynb")


def _kaggle_server(name: str, hub: str | None) -> Server:
    """Return the server of Kaggle's API: a named hub or mirror, else Kaggle. Raises `SignInError` without a sign-in."""
    is_named = hub not in (None, "google") or credentials.names_hub() or settings.load().kaggle
    if not is_named and credentials.own_kaggle() is None:
        raise SignInError(
            f"Kaggle gives the notebook {name} to signed-in users only, and nobody is signed in to Kaggle.",
            "Sign in: haversack login kaggle",
        )
    return credentials.kaggle(hub)


def _kaggle_source(blob: dict[str, Any], name: str) -> bytes:
    """Return the notebook in Kaggle's answer. Raises `NotebookInvalid` for a script, and for one in R."""
    kind, language = str(blob.get("kernelType") or "notebook").lower(), str(blob.get("language") or "python").lower()
    if kind != "notebook" or language != "python":
        what = f"a {kind}" if language == "python" else f"a {kind} in {language.capitalize()}"
        raise NotebookInvalid(f"{name} on Kaggle is {what}, not a Python notebook.", "Give a notebook's address.")
    return str(blob.get("source") or "").encode()


# Other places


def _from_store(address: Address, hub: str | None) -> FetchedNotebook:
    """Fetch from a store that fsspec has a file system for, with the sign-in that this file system finds."""
    import fsspec

    try:
        with fsspec.open(address.target, "rb") as file:
            return FetchedNotebook(_limited(file, address.target), address.target.rpartition("/")[2])
    except FileNotFoundError:
        raise NotFound(f"There is no file {address.target}.", "Check the address.") from None
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, HaversackError):
            raise
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise InputError(f"{address.target} cannot be opened: {reason}.", _BY_HAND) from None


def _from_input(address: Address, hub: str | None) -> FetchedNotebook:
    return FetchedNotebook(_limited(sys.stdin.buffer, "the standard input"), address.name)


def _limited(file: IO[bytes], where: str) -> bytes:
    content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise _too_long(where)
    return content
