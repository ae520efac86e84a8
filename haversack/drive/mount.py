"""The drive as files: its mount, from `mount` to `unmount`.

A mount is served by a process of its own, which outlives the one that asked for it. It takes the drive's token from its
environment, holds the embedded hub as its user, and stands in a registry in the data folder, so that any process can
unmount it. Unmounting refuses new writes, uploads what is pending, and only then lets the mount go.

Where FUSE is not to be had, the embedded drive, an ordinary folder of this machine, becomes a symbolic link instead.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock, Timeout

from haversack import credentials, place, progress, settings
from haversack.credentials import Server
from haversack.drive import tree
from haversack.drive.tree import ALIAS, ROOT
from haversack.errors import HaversackError, MountError, MountpointInvalid

if TYPE_CHECKING:
    from haversack.drive.fuse import Operations

_log = logging.getLogger(__name__)

_MOUNT_TIMEOUT = 60.0
_ENOUGH = "install fuse3 (Debian: apt-get install fuse3)"
_daemons: dict[str, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Mounted:
    """A drive among this machine's files. `where` says in words where the bytes are; `note` what is unusual."""

    mountpoint: Path
    my_drive: Path
    where: str
    kind: Literal["fuse", "link"]
    note: str = ""


@dataclass(frozen=True)
class _Record:
    """What the registry keeps of a mount. `pending` are files and bytes that are still to be uploaded."""

    mountpoint: str
    namespace: int
    kind: Literal["fuse", "link"]
    where: str
    hub: str
    made: bool
    job: str = ""
    pid: int = 0
    pending: tuple[int, int] = (0, 0)
    failed: str = ""

    @property
    def file(self) -> Path:
        key = hashlib.sha256(f"{self.namespace} {self.mountpoint}".encode()).hexdigest()[:16]
        return _registry() / f"{key}.json"

    def write(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside = self.file.with_suffix(f".{os.getpid()}.new")
        aside.write_text(json.dumps(asdict(self)))
        aside.replace(self.file)

    def mounted(self, note: str = "") -> Mounted:
        return Mounted(Path(self.mountpoint), Path(self.mountpoint) / ROOT, self.where, self.kind, note)


def mount(
    mountpoint: str | Path, *, hub: str | None = None, readonly: bool = False, foreground: bool = False
) -> Mounted:
    """Show the drive under `mountpoint`, an empty folder or one to be made; returns once it is usable.

    `hub` names the drive as in `credentials.drive`. With `foreground` this process serves it, and returns when it was
    unmounted or interrupted. Mounting the same drive there again changes nothing.

    Raises `MountpointInvalid`, `MountError` when FUSE refuses and there is no other way, and `SignInError`,
    `ConnectionFailed` or `InputError` when there is no drive to mount.
    """
    path = _absolute(mountpoint)
    server = credentials.drive(hub)
    clear_stale(path)
    job = os.environ.get("HAVERSACK_JOB", "")
    record = _Record(str(path), _namespace(), "fuse", _where(server), _hub_of(server), not path.exists(), job)
    if (there := _find(path)) is not None and _is_there(there):
        if there.where == record.where:
            return there.mounted()
        raise MountError(f"Another drive is mounted at {path} already.", "Unmount it first, or choose another folder.")
    check_mountpoint(path)
    tree.check(server)
    refusal = _fuse_refusal()
    if refusal and readonly and server.folder is not None:
        raise MountError(
            f"{refusal} A link in its place could not refuse writes.", f"Leave out readonly, or {_ENOUGH}."
        )
    if refusal:
        return _link(record, server, refusal)
    if foreground:
        path.mkdir(exist_ok=True)
        _serve(record, readonly)
        return record.mounted()
    try:
        return _spawn(record, server, readonly)
    except MountError as error:
        if server.folder is None or readonly:
            raise
        return _link(record, server, error.what)


def unmount(mountpoint: str | Path) -> None:
    """Take the drive away from `mountpoint`; returns once everything written is on it.

    Raises `MountError` when nothing is mounted there, or when something written did not reach the drive: it then waits
    on this machine, and goes up with the next mount.
    """
    path = _absolute(mountpoint)
    record = _find(path)
    if record is None:
        raise MountError(f"No drive is mounted at {path}.", "Check the path; `mount | grep haversack` lists mounts.")
    _unmount(record)


def jobs() -> set[Path]:
    """The folders of the notebook jobs that have something mounted."""
    records = [_read(file) for file in sorted(_registry().glob("*.json"))]
    return {Path(record.job) for record in records if record is not None and record.job}


def unmount_job(job: Path) -> list[Mounted]:
    """Unmount what the notebook job with the folder `job` left mounted, in whichever mount namespace that was.

    Returns what was mounted. Raises like `unmount`, the first error after all were tried.
    """
    records = [record for file in sorted(_registry().glob("*.json")) if (record := _read(file)) is not None]
    own = [record for record in records if record.job == str(job)]
    errors = []
    for record in own:
        try:
            _unmount(record)
        except MountError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return [record.mounted() for record in own]


def _unmount(record: _Record) -> None:
    path = Path(record.mountpoint)
    if record.kind == "link":
        _unlink(record)
    elif _is_served(record):
        _end(record)
    else:
        _recover(record)
    if record.made and path.is_dir() and not any(path.iterdir()):
        path.rmdir()


def is_mounted(mountpoint: str | Path) -> bool:
    """Whether `mount` put a drive there that is still usable."""
    record = _find(_absolute(mountpoint))
    return record is not None and _is_there(record)


def is_registered(mountpoint: str | Path) -> bool:
    """Whether a drive was mounted there and not unmounted since; its process may be dead."""
    return _find(_absolute(mountpoint)) is not None


def clear_stale(path: Path) -> None:
    """Take away a mount whose process is dead."""
    try:
        path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
            raise
        _detach(path)


def check_mountpoint(path: str | Path, *, colab: bool = False) -> None:
    """Raise `MountpointInvalid` for what a drive cannot be mounted on, in the words of Colab's `drive.mount`.

    With `colab` a space is refused too, and the words are Colab's alone.
    """
    folder = Path(os.path.expanduser(path))
    wrong, instead = "", ""
    if colab and " " in str(folder):
        wrong, instead = "Mountpoint must not contain a space.", "Choose another name."
    elif folder.is_symlink():
        wrong, instead = "Mountpoint must not be a symlink", f"Name the folder itself: {folder.resolve()}."
    elif folder.is_dir() and any(folder.iterdir()):
        wrong, instead = "Mountpoint must not already contain files", "Choose an empty folder, or a new one."
    elif folder.exists() and not folder.is_dir():
        wrong, instead = "Mountpoint must either be a directory or not exist", "Choose another name."
    elif not folder.parent.is_dir():
        wrong, instead = "Mountpoint must be in a directory that exists", f"Make {folder.parent} first."
    if wrong and colab:
        raise MountpointInvalid(wrong)
    if wrong:
        raise MountpointInvalid(f"{wrong.rstrip('.')}: {folder}.", instead)


# The serving process


def _serve(record: _Record, readonly: bool) -> None:
    """Serve a mount until it is asked to end. Raises `MountError` when FUSE refuses, or bytes are not on the drive."""
    from haversack.drive.fuse import Fuse, Operations

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stopped = threading.Event()
    if threading.current_thread() is threading.main_thread():
        # Handlers of our own keep libfuse from ending at the signal, before what is pending is on the drive.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: stopped.set())
    record = replace(record, pid=os.getpid())
    record.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = FileLock(record.file.with_suffix(".lock"), thread_local=False)
    try:
        lock.acquire(timeout=5)
    except Timeout:
        raise MountError(f"A drive is being mounted at {record.mountpoint} already.", "Wait for it.") from None
    with lock:
        drive = tree.connect(record.hub)
        operations = Operations(drive, readonly)
        refused: list[BaseException] = []

        def serve() -> None:
            try:
                Fuse(operations, record.mountpoint, readonly)
            except Exception as error:  # noqa: BLE001 - handed to the main thread, which says it
                refused.append(error)
            finally:
                stopped.set()

        serving = threading.Thread(target=serve, name="fuse", daemon=True)
        serving.start()
        while not operations.ready.wait(0.02) and not stopped.is_set():
            continue
        if not operations.ready.is_set():
            why = f" ({refused[0]})" if refused else ""
            raise MountError(f"FUSE refused to mount at {record.mountpoint}{why}.", "Its own words stand above.")
        record.write()
        while not stopped.wait(1):
            continue
        _finish(record, operations, serving)


def _finish(record: _Record, operations: Operations, serving: threading.Thread) -> None:
    """Upload what is pending, let the mount go, and leave word in the registry when something did not arrive."""
    operations.refuse_writes()
    told = 0.0

    def tell(files: int, size: int) -> None:
        nonlocal told
        if time.monotonic() - told > 0.3:
            told = time.monotonic()
            replace(record, pending=(files, size)).write()

    failed = operations.drive.journal.drain(tell)
    if serving.is_alive():
        _detach(Path(record.mountpoint))
        serving.join(1)
    if not failed:
        operations.drive.journal.close()
        record.file.unlink(missing_ok=True)
        return
    names = ", ".join(draft.name for draft in list(failed)[:3]) + (", …" if len(failed) > 3 else "")
    what = f"{len(failed)} files are not on the drive ({names}): {next(iter(failed.values()))}"
    error = MountError(what, "They wait on this machine and go up with the next mount.")
    replace(record, failed=what).write()
    raise error


# Beginning


def _spawn(record: _Record, server: Server, readonly: bool) -> Mounted:
    """Have a process of its own serve the mount, and wait until it does."""
    command = [place.interpreter(), "-m", "haversack", "mount", record.mountpoint, "--foreground"]
    environment = {**os.environ, "HAVERSACK_HUB": record.hub}
    if server.folder is None:
        environment["HAVERSACK_TOKEN"] = server.secrets[0]
    log = record.file.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command + ["--readonly"] * readonly,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    end = time.monotonic() + _MOUNT_TIMEOUT
    while time.monotonic() < end and process.poll() is None:
        found = _find(Path(record.mountpoint))
        if found is not None and found.pid == process.pid:
            _daemons[record.mountpoint] = process
            return found.mounted()
        time.sleep(0.02)
    if process.poll() is None:
        process.kill()
    process.wait()
    clear_stale(Path(record.mountpoint))
    if record.made and Path(record.mountpoint).is_dir():
        Path(record.mountpoint).rmdir()
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    reason = said[-1].removeprefix("haversack: ") if said else f"It was not ready after {_MOUNT_TIMEOUT:.0f} s."
    raise MountError(f"The drive could not be mounted at {record.mountpoint}: {reason}", f"See {log}.")


def _fuse_refusal() -> str:
    """Why FUSE cannot be used here; "" when nothing speaks against it."""
    if os.environ.get("HAVERSACK_FUSE", "").lower() in ("off", "0", "no"):
        return "HAVERSACK_FUSE turns FUSE off."
    if sys.platform == "linux" and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "There is no /dev/fuse that may be used."
    if sys.platform == "linux" and os.getuid() and not (shutil.which("fusermount3") or shutil.which("fusermount")):
        return "fusermount3 is not installed."
    try:
        from haversack.drive import fuse  # noqa: F401
    except (OSError, ImportError, AttributeError) as error:
        return f"libfuse is not installed ({error})."
    return ""


def _link(record: _Record, server: Server, refusal: str) -> Mounted:
    if server.folder is None:
        raise MountError(
            f"{refusal} The drive cannot be mounted without FUSE.",
            f"To mount it, {_ENOUGH}; or copy with `haversack drive get`.",
        )
    path = Path(record.mountpoint)
    path.mkdir(exist_ok=True)
    (path / ROOT).symlink_to(server.folder, target_is_directory=True)
    (path / ALIAS).symlink_to(ROOT, target_is_directory=True)
    linked = replace(record, kind="link")
    linked.write()
    return linked.mounted(f"{refusal} {path / ROOT} is a symbolic link to {server.folder}.")


# Ending


def _end(record: _Record) -> None:
    """Ask the serving process to end, and wait until it has."""
    try:
        os.kill(record.pid, signal.SIGTERM)
    except PermissionError:
        raise MountError(f"{record.mountpoint} was mounted by another user.", "Unmount it as that user.") from None
    except ProcessLookupError:
        pass
    with progress.bar(f"Uploading to unmount {record.mountpoint}", None) as advance:
        last = None
        while _is_served(record):
            now = _read(record.file)
            if now is not None and now.pending[1] != last:
                advance(max((last or now.pending[1]) - now.pending[1], 0))
                last = now.pending[1]
            time.sleep(0.05)
    if (process := _daemons.pop(record.mountpoint, None)) is not None:
        process.wait()
    left = _read(record.file)
    if left is None:
        return
    left.file.unlink(missing_ok=True)
    if left.failed:
        raise MountError(left.failed, "They wait on this machine and go up with the next mount.")
    # It died on the way, so what it had to upload is still to do.
    _recover(left)


def _recover(record: _Record) -> None:
    """End a mount whose process is dead: clear it away and upload what it left."""
    clear_stale(Path(record.mountpoint))
    try:
        failed = tree.connect(record.hub).journal.drain()
    except HaversackError as error:
        raise MountError(
            f"The process of the mount at {record.mountpoint} is dead, and the drive cannot be asked: {error}",
            "What was written waits on this machine and goes up with the next mount.",
        ) from error
    record.file.unlink(missing_ok=True)
    if failed:
        raise MountError(
            f"{len(failed)} files are not on the drive: {next(iter(failed.values()))}",
            "They wait on this machine and go up with the next mount.",
        )


def _unlink(record: _Record) -> None:
    for name in (ALIAS, ROOT):
        link = Path(record.mountpoint) / name
        if link.is_symlink():
            link.unlink()
    record.file.unlink(missing_ok=True)


def _detach(path: Path) -> None:
    """Unmount, or, where something still stands in it, as soon as that lets go."""
    for command in (["fusermount3", "-u"], ["umount"], ["fusermount3", "-uz"], ["fusermount", "-uz"], ["umount", "-l"]):
        if shutil.which(command[0]) is None:
            continue
        done = subprocess.run([*command, str(path)], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode == 0:
            return
    _log.warning("%s could not be unmounted: %s", path, done.stderr.decode(errors="replace").strip())


# The registry


def _registry() -> Path:
    return settings.load().data / "mounts"


def _find(path: Path) -> _Record | None:
    """The mount at `path` as this process sees it, else the only one there in another mount namespace."""
    records = [record for file in sorted(_registry().glob("*.json")) if (record := _read(file)) is not None]
    records = [record for record in records if record.mountpoint == str(path)]
    own = [record for record in records if record.namespace == _namespace()]
    if own:
        return own[0]
    return records[0] if len(records) == 1 else None


def _read(file: Path) -> _Record | None:
    try:
        values = json.loads(file.read_text())
        return _Record(**{**values, "pending": tuple(values["pending"])})
    except (FileNotFoundError, json.JSONDecodeError, TypeError, KeyError):
        return None


def _is_served(record: _Record) -> bool:
    """Whether the process that serves a mount lives: it holds the lock as long as it does."""
    lock = FileLock(record.file.with_suffix(".lock"), thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


def _is_there(record: _Record) -> bool:
    if record.kind == "link":
        return (Path(record.mountpoint) / ROOT).is_symlink()
    return record.namespace == _namespace() and _is_served(record) and os.path.ismount(record.mountpoint)


def _namespace() -> int:
    """The mount namespace: the same path may be another place in each."""
    try:
        return os.stat("/proc/self/ns/mnt").st_ino
    except FileNotFoundError:
        return 0


def _absolute(mountpoint: str | Path) -> Path:
    path = Path(os.path.abspath(os.path.expanduser(mountpoint)))
    return path.parent.resolve() / path.name


def _where(server: Server) -> str:
    return f"this machine, in {server.folder}" if server.folder is not None else f"the {server.name} at {server.url}"


def _hub_of(server: Server) -> str:
    return "embedded" if server.folder is not None else server.url
