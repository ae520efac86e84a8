"""`haversack data put`: publication of a local folder or zip archive as a data set on Kaggle or a hub.

A folder can also be stored on a drive, an object store or a local disk as shards: archives of a limited size, which
`folder/*.zip` reads as one data set. On Kaggle a data set is always one archive, because Kaggle would unpack each of
several archives into a folder of its name.
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
from haversack.datasets.kaggle import Competition, DatasetMetadata, DatasetName, KaggleApi, parse_source
from haversack.datasets.locks import lock_of
from haversack.datasets.source import dataset, normalize_source
from haversack.errors import InputError
from haversack.http import Http, wait


@dataclass(frozen=True)
class Published:
    """The result of `put`.

    Attributes:
        source: opens what was published with `haversack.dataset`; with the version, except for a competition's data.
        version: the number that the server gave it.
        url: the address of the data set's web page.
    """

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
    """Publish the folder or zip archive `path` as a new data set, or as the next version of an existing one.

    Returns once the server serves the new version. An interrupted upload is resumed when the same files are published
    again, also by another process.

    Args:
        path: the folder, which is packed into one archive without compression, or the zip archive.
        destination: kaggle:owner/name; on a hub also kaggle:c/name, for the data of a competition.
        title, licence, public: of a new data set only. The defaults are its name, "unknown", and private. A licence has
            Kaggle's name for it, such as CC0-1.0 or CC-BY-SA-4.0.
        notes: what is new in this version; not used for a new data set.
        hub: a hub's URL, "google" or "embedded"; None for the default. See `credentials`.

    Raises `InputError` for a path or destination that cannot be published, and for `title`, `licence` or `public` of an
    existing data set; `ArchiveInvalid` for an invalid archive; `DiskFull` if packing needs more space; `Forbidden`,
    `SignInError`, `RateLimited`, another `RemoteError` or `ConnectionFailed` if the server refuses or does not answer;
    and `RemoteError` if it cannot unpack the archive or does not serve it within 15 minutes.
    """
    name = _parse_destination(destination)
    path = Path(path).expanduser().absolute()
    if not path.exists():
        raise InputError(f"There is no {path}.", "Name a folder or a zip archive.")
    server = credentials.kaggle(hub)
    states = _make_private_folder(settings.load().data / "uploads")
    key = hashlib.sha256(f"{path} {server.url} {name}".encode()).hexdigest()[:16]
    metadata = DatasetMetadata(title, licence, public, notes)
    with lock_of(key):
        if path.is_dir():
            packed = states / f"{key}.zip"
            try:
                pack(path, packed)
                version, url = _publish(name, packed, metadata, server, states)
            finally:
                packed.unlink(missing_ok=True)
        else:
            dataset(path).close()  # raises if the archive is invalid
            version, url = _publish(name, path, metadata, server, states)
    source = f"kaggle:{name}" if name.owner == "c" else f"kaggle:{name}@{version}"
    return Published(source, version, url)


@dataclass(frozen=True)
class Sharded:
    """The result of `put_shards`.

    Attributes:
        source: opens all archives as one data set with `haversack.dataset`: the destination and `/*.zip`.
        archives: the archives' file names.
        size: the sum of the archives' sizes in bytes.
    """

    source: str
    archives: tuple[str, ...]
    size: int


def put_shards(path: str | Path, destination: str, limit: int = 2_000_000_000, *, hub: str | None = None) -> Sharded:
    """Store the folder `path` as zip archives of at most `limit` bytes each (shards) in the folder `destination`.

    For a remote destination all archives are first written to this machine's data folder, then uploaded and deleted. If
    an interrupted call is repeated, archives that are at the destination already are not uploaded again.

    Args:
        path: the folder.
        destination: a local folder that does not exist yet, or a folder of a drive or an object store that has no other
            zip archive, such as drive:/My Drive/x or s3://bucket/x.
        limit: the maximum size of an archive, in bytes.
        hub: for drive: destinations, a hub's URL, "google" or "embedded"; None for the default. See `credentials`.

    Raises `InputError` for a folder that cannot be packed, a file larger than `limit`, and a destination that is taken
    or unsuitable; `ExtraMissing` if its file system's library is not installed; `DiskFull`; `NotFound`, `Forbidden` or
    another `RemoteError` if the file system fails; for a drive also `SignInError` or `ConnectionFailed`;
    `IntegrityError` if an uploaded archive differs.
    """
    path = Path(path).expanduser().absolute()
    if not path.is_dir():
        raise InputError(f"{path} is not a folder.", "Name the folder to pack.")
    url = normalize_source(destination).rstrip("/")
    if url.startswith(("kaggle:", "http://", "https://")) or url.endswith(".zip"):
        raise InputError(
            f"{destination} cannot hold several archives.",
            "Name a folder on this machine, a drive or an object store; on Kaggle a data set is one archive.",
        )
    files = folder_files(path)
    if "://" not in url:
        archives = write_shards(files.items(), Path(url), limit)
        return _sharded(url, archives)
    system, folder = stored.open_filesystem(url, hub)
    packing = settings.load().data / "uploads"
    key = hashlib.sha256(f"{path} {url}".encode()).hexdigest()[:16]
    with (
        lock_of(key),
        tempfile.TemporaryDirectory(prefix=f"{key}-", dir=_make_private_folder(packing)) as temporary,
    ):
        archives = write_shards(files.items(), Path(temporary) / url.rpartition("/")[2], limit)
        sharded = _sharded(url, archives)
        stored.check_no_other_archives(system, folder, archives, url)
        with progress.bar(f"Uploading to {url}", sharded.size) as advance:
            for archive in archives:
                stored.upload(system, archive, f"{folder}/{archive.name}", f"{url}/{archive.name}")
                advance(archive.stat().st_size)
                archive.unlink()
    return sharded


def _sharded(url: str, archives: list[Path]) -> Sharded:
    size = sum(archive.stat().st_size for archive in archives)
    return Sharded(f"{url}/*.zip", tuple(archive.name for archive in archives), size)


def _make_private_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _parse_destination(destination: str) -> DatasetName:
    """Return the data set to publish; `kaggle:c/name` becomes the data set `name` of the owner `c`, as hubs name it.

    Raises `InputError` for anything that is not a whole data set without a version.
    """
    if not destination.startswith("kaggle:"):
        raise InputError(
            f"{destination} is no data set on Kaggle or a hub.",
            "Use kaggle:owner/name, or store a folder elsewhere as archives, with --shard 2GB.",
        )
    name, folder = parse_source(destination)
    if folder:
        raise InputError(f"{destination} is a folder of a data set.", "Publish the whole data set: kaggle:owner/name.")
    if isinstance(name, Competition):
        return DatasetName("c", name.name)
    if name.version is not None:
        raise InputError("Versions are numbered by the server.", f"Use kaggle:{name.owner}/{name.name}.")
    return name


def _publish(
    name: DatasetName, archive: Path, metadata: DatasetMetadata, server: Server, states: Path
) -> tuple[int, str]:
    http = Http(server)
    try:
        return wait(KaggleApi(http).publish(name, archive, metadata, states))
    finally:
        wait(http.close())
