"""`haversack data put`: a folder or archive of this machine published as a data set on Kaggle or a hub."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from haversack import credentials, settings
from haversack.archive.writer import pack
from haversack.credentials import Server
from haversack.datasets.kaggle import Competition, KaggleApi, Name, Words, parsed
from haversack.datasets.locks import lock_of
from haversack.datasets.source import dataset
from haversack.errors import InputError
from haversack.http import Http, wait


@dataclass(frozen=True)
class Published:
    """What `put` made: the source to use it by, its version, and its web address."""

    source: str
    version: int
    url: str


def put(
    path: str | Path,
    destination: str,
    *,
    title: str | None = None,
    licence: str | None = None,
    public: bool = False,
    notes: str | None = None,
    hub: str | None = None,
) -> Published:
    """Publish the folder or zip archive `path` as `kaggle:owner/name`: a new data set, or its next version.

    Args:
        path: what to publish; a folder is packed into one archive, without compression.
        destination: kaggle:owner/name; on a hub also kaggle:c/name, for the data of a competition.
        title, licence, public: of a new data set only; its name, "unknown" and private unless given. A licence has
            Kaggle's name for it, such as CC0-1.0 or CC-BY-SA-4.0.
        notes: what is new in this version.
        hub: the hub to publish on; None for what the settings say.

    An upload that was cut off, also by the end of the process, goes on when the same files are put again. Raises
    `InputError` for what cannot be published, and what the server's answers mean.
    """
    name = _of(destination)
    path = Path(path).expanduser().absolute()
    if not path.exists():
        raise InputError(f"There is no {path}.", "Give a folder, or a zip archive.")
    server = credentials.kaggle(hub)
    states = settings.load().data / "uploads"
    states.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = hashlib.sha256(f"{path} {server.url} {name}".encode()).hexdigest()[:16]
    words = Words(title, licence, public, notes)
    with lock_of(key):
        if path.is_dir():
            packed = states / f"{key}.zip"
            try:
                pack(path, packed)
                version, url = _publish(name, packed, words, server, states)
            finally:
                packed.unlink(missing_ok=True)
        else:
            dataset(path).close()
            version, url = _publish(name, path, words, server, states)
    source = f"kaggle:{name}" if name.owner == "c" else f"kaggle:{name}@{version}"
    return Published(source, version, url)


def _of(destination: str) -> Name:
    """The data set's name; a competition's data is a data set of its own on a hub, and nothing that Kaggle takes."""
    name, folder = parsed(destination)
    if folder:
        raise InputError(
            f"{destination} is a folder of a data set.", "A data set is published whole: kaggle:owner/name."
        )
    if isinstance(name, Competition):
        return Name("c", name.name)
    if name.version is not None:
        raise InputError("A version is numbered by the server.", f"Write kaggle:{name.owner}/{name.name}.")
    return name


def _publish(name: Name, archive: Path, words: Words, server: Server, states: Path) -> tuple[int, str]:
    http = Http(server)
    try:
        return wait(KaggleApi(http).publish(name, archive, words, states))
    finally:
        wait(http.close())
