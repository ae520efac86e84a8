"""`haversack data put`: a folder or archive of this machine published as a data set on Kaggle or a hub.

A folder can also be put elsewhere (a drive, an object store, another folder) as shards, archives of a size that their
place likes, which `folder/*.zip` reads as one data set. On Kaggle a data set is one archive, whatever its size, because
Kaggle unpacks several into folders of their names.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from haversack import credentials, progress, settings
from haversack.archive.writer import folder_files, pack, write_shards
from haversack.credentials import Server
from haversack.datasets import stored
from haversack.datasets.kaggle import Competition, KaggleApi, Name, Words, parsed
from haversack.datasets.locks import lock_of
from haversack.datasets.source import dataset, named
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
    states = _made(settings.load().data / "uploads")
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


@dataclass(frozen=True)
class Sharded:
    """What `put_shards` made: the source to use it by, its archives' names, and their size in bytes."""

    source: str
    archives: tuple[str, ...]
    size: int


def put_shards(path: str | Path, destination: str, limit: int = 2_000_000_000, *, hub: str | None = None) -> Sharded:
    """Put the folder `path` as archives of at most `limit` bytes each into the folder `destination`.

    Args:
        path: the folder.
        destination: a folder of this machine, which is not there yet, or one of a drive or an object store:
            drive:/My Drive/x, s3://bucket/x.
        limit: in bytes.
        hub: the hub that the drive is on; None for what the settings say.

    Begun again after it was cut off, what is there already is not sent again. Raises `InputError` for what cannot be
    packed, and where other archives of that name are.
    """
    path = Path(path).expanduser().absolute()
    if not path.is_dir():
        raise InputError(f"{path} is no folder.", "Give the folder that is to be packed.")
    url = named(destination).rstrip("/")
    if url.startswith(("kaggle:", "http://", "https://")) or url.endswith(".zip"):
        raise InputError(
            f"{destination} does not take several archives.",
            "Give a folder of this machine, of a drive or of an object store; on Kaggle a data set is one archive.",
        )
    files = folder_files(path)
    if "://" not in url:
        made = write_shards(files.items(), Path(url), limit)
        return _sharded(url, made)
    system, there = stored.opened(url, hub)
    packing = settings.load().data / "uploads"
    key = hashlib.sha256(f"{path} {url}".encode()).hexdigest()[:16]
    with lock_of(key), tempfile.TemporaryDirectory(prefix=f"{key}-", dir=_made(packing)) as aside:
        made = write_shards(files.items(), Path(aside) / url.rpartition("/")[2], limit)
        sharded = _sharded(url, made)
        stored.check_free(system, there, made, url)
        with progress.bar(f"Putting {url}", sharded.size) as advance:
            for archive in made:
                stored.put(system, archive, f"{there}/{archive.name}", f"{url}/{archive.name}")
                advance(archive.stat().st_size)
                archive.unlink()
    return sharded


def _sharded(url: str, made: list[Path]) -> Sharded:
    return Sharded(f"{url}/*.zip", tuple(one.name for one in made), sum(one.stat().st_size for one in made))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _of(destination: str) -> Name:
    """The data set's name; a competition's data is a data set of its own on a hub, and nothing that Kaggle takes."""
    if not destination.startswith("kaggle:"):
        raise InputError(
            f"{destination} is no data set on Kaggle or a hub.",
            "Write kaggle:owner/name, or put a folder elsewhere as archives, with --shard 2GB.",
        )
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
