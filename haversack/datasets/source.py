"""`haversack.dataset`: opens a data set by its source and reads it in place.

A data set on Kaggle or a hub is one zip archive. Listing it fetches only the archive's directory, and reading a file
fetches that file's byte range; `fetch`, `save` and `extract` fetch everything. Of a folder in it (`subset`), only the
folder's files are fetched. Fetched bytes are cached by server, owner, name and version (`cache`), and processes share
the cache.

Archives on the web, archives and folders on a drive or an object store (`stored`), and local ones have the same
interface. A drive is accessed only as an fsspec file system.
"""

from __future__ import annotations

import asyncio
import base64
import difflib
import hashlib
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal
from urllib.parse import unquote, urlsplit

from fsspec.asyn import get_loop

from haversack import credentials, settings
from haversack.archive.reader import LocalFile
from haversack.blocks.ranges import RemoteFile
from haversack.blocks.sparse import whole_file
from haversack.credentials import Server
from haversack.datasets import stored
from haversack.datasets.cache import folder_for, list_cached, record_source
from haversack.datasets.contents import ArchiveContents, Contents, DatasetFile, FolderContents, sizes_of
from haversack.datasets.extraction import extract
from haversack.datasets.joined import Joined, check_complete
from haversack.datasets.kaggle import Competition, DatasetName, KaggleApi, parse_source, source_of_page
from haversack.datasets.subset import Subset
from haversack.errors import ArchiveInvalid, ConnectionFailed, InputError, NotFound
from haversack.http import Http, wait

if TYPE_CHECKING:
    from haversack.datasets.augment import Augment
    from haversack.datasets.decode import Fit
    from haversack.datasets.images import Images
    from haversack.datasets.labels import LabelSource
    from haversack.datasets.loader import Corrupt

_ACCEPTED_SOURCES = (
    "Use kaggle:owner/name, optionally with @version and /folder, kaggle:c/competition, the URL of a zip archive,"
    " drive:/My Drive/x or another fsspec URL, a local zip archive or folder, or folder/*.zip for several archives."
)
_ARCHIVE = "archive.zip"
# Similar names are searched among this many; difflib takes about a second for them.
_MAX_COMPARED_NAMES = 5_000


class Dataset:
    """The files of a data set, opened by `haversack.dataset`. Thread-safe, and a context manager that closes it.

    The attribute `source` is its canonical source, with the version. Pickling keeps the source and opens it again.

    Methods that take a file's name raise `NotFound` if it is not in `files`. Methods that fetch raise
    `ConnectionFailed`, `SignInError`, `Forbidden`, `RateLimited` or another `RemoteError` if the server does not answer
    or refuses, `IntegrityError` if bytes are wrong, and `DiskFull`. Methods that read raise `ArchiveInvalid` for a
    member of an archive that is encrypted or neither stored nor deflated.
    """

    def __init__(
        self,
        source: str,
        name: str,
        contents: Contents,
        given: str | None = None,
        hub: str | None = None,
        about: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.source = source
        self._name = name
        self._contents = contents
        # `given` opens the data set again: unlike `source`, it may have a sign-in in its URL.
        self._given = given or source
        self._hub = hub
        # Returns the metadata of a data set on Kaggle or a hub, for `info`.
        self._about = about
        try:
            self._size = contents.size
        except ArchiveInvalid as error:
            raise ArchiveInvalid(f"{source} cannot be read. {error.what}", error.next_step) from error

    @property
    def name(self) -> str:
        """Its name without owner and version: that of the folder if the source names one."""
        return self._name

    @property
    def is_archive(self) -> bool:
        """Whether its files are members of one or several archives, and not files of a folder."""
        return not isinstance(self._contents, FolderContents | stored.StoredFolder)

    def sizes(self) -> Iterable[tuple[str, int]]:
        """Return the name and the size in bytes of each file, as `members` has them: fast for a million files."""
        return sizes_of(self._contents.files)

    @property
    def members(self) -> list[DatasetFile]:
        """The files, each with `name` and `size` in bytes.

        Those of an archive are in the order of its central directory, those of several archives one archive after the
        other, those of a folder sorted by name.
        """
        return list(self._contents.files.values())

    @property
    def files(self) -> list[str]:
        """The files' names, with slashes, in the order of `members`; relative to the folder if the source names one."""
        return list(self._contents.files)

    def read(self, name: str) -> bytes:
        """Return a file's bytes, fetched if needed.

        An archive's member is verified by its CRC-32, a file of a remote folder by its size, a local one not at all.
        """
        return self._contents.read(self._checked(name))

    def want(self, names: Iterable[str]) -> None:
        """Prefetch these files in the background, in this order, instead of those of an earlier call; return at once.

        A fetch that fails ends the prefetch and is only logged: the later read of the file raises the error. Does
        nothing for a local data set.
        """
        self._contents.prefetch(map(self._checked, names))

    def fetch(self) -> None:
        """Fetch the whole data set into the cache; return when it is there. Does nothing for a local one.

        A whole archive is then verified, by its hash or its members' CRCs; members of a part of an archive (a source
        with a folder) are verified when they are read. Raises `DiskFull` before anything of an archive or folder is
        fetched if the disk is known to have no space for it.
        """
        self._contents.complete()

    @property
    def content(self) -> str:
        """16 hex digits that change with the files, judged by their sizes and times or the server's tags."""
        return self._contents.content

    def open(self, name: str) -> BinaryIO:
        """Return a file as a seekable binary file object; the caller closes it.

        Of a remote archive its reads fetch what they need, a file of a remote folder is fetched first. A member of an
        archive is verified when its end is read.
        """
        return self._contents.open(self._checked(name))

    def path(self, name: str) -> Path:
        """Return a local path of a file, for libraries that need one.

        It is the file itself if the data set is a local folder, else a copy in the cache, which is extracted or fetched
        if it is missing. Do not write to it: other processes use it too.
        """
        return self._contents.path(self._checked(name))

    def extract(self, to: str | Path = ".") -> Path:
        """Extract every file below the folder `to`, created if it is missing; return its absolute path.

        First the whole data set is fetched, unless all files are there already. An existing file with the same bytes is
        left alone. Raises `InputError`, and leaves `to` unchanged, if `to` is not a folder, a different file is in the
        way, a link leads out of `to`, or a name in the data set is both a file and a folder.
        """
        return extract(self._contents, Path(to), self.source)

    def save(self, to: str | Path = ".") -> Path:
        """Save the data set as one zip archive; return the archive's absolute path.

        The archive is written at `to` if that ends with .zip and is not a folder, else in the folder `to`, created if
        it is missing, under the data set's name. The whole data set is fetched first. An archive is copied unless the
        same bytes are there already; a folder, a part of a data set, or several archives are packed into a new one.
        Raises `InputError` if a different file is there; if the data set has to be packed, if any file is there.
        """
        to = Path(to).expanduser().absolute()
        target = to if to.suffix == ".zip" and not to.is_dir() else to / f"{self._name}.zip"
        self._contents.save(target)
        return target

    def images(
        self,
        *,
        size: tuple[int, int] = (224, 224),
        channels: int = 3,
        labels: LabelSource = "folder",
        names: Sequence[str] | Callable[[str], bool] | None = None,
        batch_size: int = 32,
        seed: int = 0,
        shuffle: bool = True,
        augment: Augment | None = None,
        fit: Fit = "stretch",
        corrupt: Corrupt = "raise",
        cache: Literal["disk"] | None = "disk",
        dtype: Literal["float32", "uint8"] = "float32",
        rank: int = 0,
        world: int = 1,
    ) -> Images:
        """Return the images of the data set as batches to train on.

        Args:
            size: (height, width) in pixels.
            channels: 1 for grey, 3 for RGB, 4 for RGBA; `datasets.decode` has the rules of conversion.
            labels: "folder" (the name of the folder that an image is in); the path of a .csv or .tsv table, on this
                machine or else in the data set, or (path, image column, label column); a dict from images to labels; a
                function of an image's name; or None for no labels. See `datasets.labels.labels_for`.
            names: the names of the images, in the order that they get without `shuffle`; or a function of a name that
                selects from the files with an image's suffix; None for all of those. Hidden files are left out unless
                `names` lists them.
            batch_size: images in a batch, over all hosts.
            seed: determines the order of the images and their augmentation.
            shuffle: whether each epoch has a random order of its own (`datasets.order`), or all have that of `names`.
            augment: a `haversack.Augmentation`, or a function of (image, numpy `Generator`) that returns an image of
                the same shape; images are uint8 arrays of shape (height, width, channels).
            fit: how an image of another aspect ratio gets `size`: "stretch" ignores the ratio, "crop" cuts off both
                ends of the longer side, "pad" adds black borders.
            corrupt: for an image that cannot be decoded, "raise" `ImageInvalid`, "skip" it in its batch, or use a
                "blank" (black) image.
            cache: "disk" caches decoded pixels if they take at most half of the free space, None does not.
            dtype: "float32", scaled to the range 0 to 1, or "uint8".
            rank, world: this host's number, from 0, and the number of hosts; each gets its part of every batch.

        Raises `InputError` for arguments that cannot be used, if there is no image, and for images without a label;
        `NotFound` if the table of labels does not exist. An image that cannot be decoded or read raises only when its
        batch is loaded; a name in `names` that the data set does not have, too.
        """
        from haversack.datasets.pipeline import images

        return images(
            self,
            size=size,
            channels=channels,
            labels=labels,
            names=names,
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            augment=augment,
            fit=fit,
            corrupt=corrupt,
            cache=cache,
            dtype=dtype,
            rank=rank,
            world=world,
        )

    def info(self) -> dict[str, Any]:
        """Return what is known about the data set, and how much of it is cached; sizes are in bytes.

        The keys are `source`, `files` (their number), `size`, and `pixels_here` (decoded pixels in the cache). An
        archive has `archive` (its path on this machine), `archive_size` and `archive_here` (cached); several archives
        have `archives` (their number) and the sums of both; a remote folder has `files_here` and `size_here`; a local
        folder, or a folder in a data set, has `folder`. With a folder in an archive, `archive…` describe the whole.

        A data set on Kaggle or a hub also has `version`, `title`, `licence`, `private`, `page` (its address), `server`
        and `signed_in_by` (where the sign-in was found, or None), by one call; a competition has no version, licence
        and `private`. If the server does not answer, what needs the call is missing; an error answer is raised.
        """
        pixels = sum(one.pixels for one in list_cached(self.source) if one.source == self.source)
        known = {"source": self.source, "files": len(self._contents.files), "size": self._size, **self._about()}
        return {**known, **self._contents.info(), "pixels_here": pixels}

    def close(self) -> None:
        """Stop prefetching, and close files: remote data and archives cannot be read any more. The cache stays."""
        self._contents.close()

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        return dataset, (self._source_to_reopen, self._hub)

    @property
    def _source_to_reopen(self) -> str:
        """The argument of `dataset` that opens the same version again."""
        return self.source if self.source.startswith("kaggle:") else self._given

    def __repr__(self) -> str:
        return f"<Dataset {self.source}: {len(self._contents.files):,} files, {self._size / 1e6:,.1f} MB>"

    def _checked(self, name: str) -> str:
        """Return `name` if it is a file's. Raises `NotFound`, with up to three similar names."""
        names = self._contents.files
        if name in names:
            return name
        base = name.rsplit("/", 1)[-1].lower()
        near = [each for each in names if each.rsplit("/", 1)[-1].lower() == base][:3]
        near = near or difflib.get_close_matches(name, list(names)[:_MAX_COMPARED_NAMES], 3)
        hint = f"Similar names: {', '.join(near)}." if near else "`.files` lists the names."
        raise NotFound(f"There is no file {name!r} in {self.source}.", hint, status=404)


def dataset(source: str | Path, hub: str | None = None) -> Dataset:
    """Open the data set `source`. Only its directory or list of files is fetched.

    Args:
        source: one of
            kaggle:owner/name, optionally with @version and /folder, or the link to its page;
            kaggle:c/competition;
            the URL of a zip archive;
            drive:/My Drive/x or any other fsspec URL, of an archive or a folder;
            the path of a zip archive or a folder on this machine;
            folder/*.zip, as a path or a URL, for several archives as one data set.
        hub: for kaggle: and drive: sources, a hub's URL, "google" or "embedded"; None for the default. See
            `credentials`.

    Without @version, the current version is opened. With it, a data set that is cached completely opens without the
    server too.

    Raises `InputError` for a source of no known form, a folder with a link to a folder or a special file, and two
    archives with a file of the same name; `NotFound` also for a missing shard; `NotFound`, `Forbidden`,
    `RulesNotAccepted`, `RateLimited` or another `RemoteError` for an error answer, `SignInError` if the sign-in is
    refused, `ConnectionFailed` if the server does not answer, `ExtraMissing` if a file system's library is not
    installed, `ArchiveInvalid` for an archive that is invalid or contradicts itself, and `DiskFull`.
    """
    name = normalize_source(source)
    if name.startswith("kaggle:"):
        return _from_kaggle(name, hub)
    if name.startswith(("http://", "https://")) and "::" not in name:
        return _from_web(name, hub)
    if "://" in name:
        return _from_store(name, hub)
    path = Path(name)
    if path.is_dir():
        return Dataset(name, path.name, FolderContents(path))
    if path.is_file():
        return Dataset(name, path.stem, ArchiveContents(LocalFile(path), folder_for(name)))
    if "*" in path.name:
        return _join_archives(
            name, {str(one): ArchiveContents(LocalFile(one), folder_for(str(one))) for one in _glob_local(path)}
        )
    raise InputError(f"{str(source)!r} is no data set.", _ACCEPTED_SOURCES)


def normalize_source(source: str | Path) -> str:
    """Return the source in canonical form; whether there is such a data set is not checked.

    A link to a page on kaggle.com becomes kaggle:…, drive: becomes drive://, and a path or file:// URL an absolute
    path. Other URLs stay as they are.
    """
    given = str(source)
    if (linked := source_of_page(given)) is not None:
        return linked
    if given.startswith("drive:") and not given.startswith("drive://"):
        return "drive://" + given.removeprefix("drive:").lstrip("/")
    if given.startswith("file://"):
        given = unquote(urlsplit(given).path)
    is_address = given.startswith("kaggle:") or "://" in given
    return given if is_address else str(Path(given).expanduser().absolute())


def _from_kaggle(source: str, hub: str | None) -> Dataset:
    """Open a `kaggle:` source on Kaggle or a hub."""
    name, folder = parse_source(source)
    server = credentials.kaggle(hub)
    start = ("datasets", _server_key(server))
    pinned = isinstance(name, DatasetName) and name.version is not None
    is_cached = pinned and whole_file(settings.load().cache.joinpath(*start, *_cache_path(name), _ARCHIVE)) is not None
    # Few retries if the whole data set is cached, because then it opens without the server too.
    http = Http(server, attempts=2) if is_cached else Http(server)
    api = KaggleApi(http)
    try:
        if isinstance(name, DatasetName) and not pinned:
            name = replace(name, version=wait(api.current_version(name)))
        cache = settings.load().cache.joinpath(*start, *_cache_path(name))
        file = RemoteFile(http, lambda: api.download_address(name), cache / _ARCHIVE, f"kaggle:{name}")
        record_source(cache, f"kaggle:{name}")
        contents: Contents = ArchiveContents(file, cache)
        shown = f"kaggle:{name}"
        if folder:
            contents, shown = Subset(contents, folder, shown), f"{shown}/{folder}"

        def about() -> dict[str, Any]:
            version = {"version": name.version} if isinstance(name, DatasetName) else {}
            sign_in = {"server": server.url, "signed_in_by": server.source if server.authorization else None}
            try:
                return {**version, **wait(api.about(name)), **sign_in}
            except ConnectionFailed:
                return {**version, **sign_in}  # the server does not answer, and the data set is read from the cache

        opened = Dataset(shown, (folder or name.name).rpartition("/")[2], contents, source, hub, about)
    except BaseException:
        _close(http)
        raise
    weakref.finalize(opened, _close, http)
    return opened


def _cache_path(name: DatasetName | Competition) -> tuple[str, ...]:
    """Return the path in the server's cache folder. Owner names have no dot, so `.competitions` cannot collide."""
    if isinstance(name, Competition):
        return ".competitions", name.name
    return name.owner, name.name, str(name.version)


def _from_web(link: str, hub: str | None) -> Dataset:
    """Open the zip archive at a web address. User, password and query of the address are never shown or logged."""
    parts = urlsplit(link)
    if not parts.hostname:
        raise InputError(f"{link!r} is no data set.", _ACCEPTED_SOURCES)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    host += f":{parts.port}" if parts.port else ""
    address = parts._replace(netloc=host, fragment="").geturl()
    shown = parts._replace(netloc=host, query="", fragment="").geturl()
    login = base64.b64encode(unquote(f"{parts.username}:{parts.password or ''}").encode()).decode()
    authorization = f"Basic {login}" if parts.username else None
    http = Http(Server(f"server {host}", f"{parts.scheme}://{host}", shown, authorization, secrets=(login,)))

    async def locate() -> str:
        return address

    try:
        # Another query may be another file: the cache folder's name includes a hash of the query.
        cache = folder_for(shown, "web", hashlib.sha256(address.encode()).hexdigest()[:16])
        contents = ArchiveContents(RemoteFile(http, locate, cache / _ARCHIVE, shown), cache)
        opened = Dataset(shown, Path(unquote(parts.path)).stem or parts.hostname, contents, link, hub)
    except BaseException:
        _close(http)
        raise
    weakref.finalize(opened, _close, http)
    return opened


def _from_store(url: str, hub: str | None) -> Dataset:
    """Open an archive, a folder, or several archives on a file system that fsspec opens."""
    system, path = stored.open_filesystem(url, hub)
    contents: Contents
    if "*" in path.rpartition("/")[2]:
        start = url.rpartition("/")[0]
        archives = {f"{start}/{one.rpartition('/')[2]}": one for one in stored.glob_files(system, path, url)}
        parts: dict[str, Contents] = {}
        for each, one in archives.items():
            cache = folder_for(each)
            parts[each] = ArchiveContents(stored.StoredFile(system, one, cache / _ARCHIVE, each), cache)
        return _join_archives(url, parts, hub)
    if stored.is_folder(system, path, url):
        contents = stored.StoredFolder(system, path, folder_for(url), url)
    else:
        cache = folder_for(url)
        contents = ArchiveContents(stored.StoredFile(system, path, cache / _ARCHIVE, url), cache)
    name = Path(url.partition("::")[0].rstrip("/"))
    return Dataset(url, name.stem if name.suffix == ".zip" else name.name, contents, url, hub)


def _glob_local(pattern: Path) -> list[Path]:
    return sorted(one for one in pattern.parent.glob(pattern.name) if one.is_file())


def _join_archives(source: str, parts: dict[str, Contents], hub: str | None = None) -> Dataset:
    """Return several archives, by their names, as one data set.

    Raises `NotFound` if there is none or a shard is missing, `InputError` for a file that is in two of them.
    """
    if not parts:
        raise NotFound(f"There is no archive {source}.", "Check the folder and the pattern.", status=404)
    check_complete((name.rpartition("/")[2] for name in parts), source)
    return Dataset(source, source.split("/")[-2] or "archives", Joined(parts, source), source, hub)


def _close(http: Http) -> None:
    """Close the connections without waiting: garbage collection may call this on the event loop's own thread."""
    asyncio.run_coroutine_threadsafe(http.close(), get_loop())


def _server_key(server: Server) -> str:
    """Return the name of a server's cache folder; the embedded hub's does not depend on its port, which changes."""
    if server.folder is not None:
        return f"embedded-{hashlib.sha256(server.source.encode()).hexdigest()[:8]}"
    return urlsplit(server.url).netloc.replace(":", "_")
