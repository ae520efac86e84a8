"""The drive as files: its mount, from `mount` to `unmount`.

A mount is served by a process of its own (`serving`), which outlives the one that asked for it. It takes the drive's
token from its environment, holds the embedded hub as its user, and stands in a registry in the data folder, so that any
process can unmount it. Unmounting refuses new writes, uploads what is pending, and only then lets the mount go.

Where FUSE is not to be had, the embedded drive, an ordinary folder of this machine, becomes a symbolic link instead.
This process talks to no drive while it mounts one, so it need not load what that takes: the other one does.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

from haversack import credentials, errors, place, progress
from haversack.credentials import Server
from haversack.drive import ALIAS, ROOT
from haversack.drive.fuse import registry
from haversack.drive.fuse.mountpoint import check_mountpoint, clear_stale
from haversack.drive.fuse.registry import Mounted, MountRecord
from haversack.errors import HaversackError, MountError

_log = logging.getLogger(__name__)

_MOUNT_TIMEOUT = 60.0
_ENOUGH = "install fuse3 (Debian: apt-get install fuse3)"
_LATER = "They wait on this machine and go up with the next mount."
_daemons: dict[str, subprocess.Popen[str]] = {}


def mount(
    mountpoint: str | Path, *, hub: str | None = None, readonly: bool = False, foreground: bool = False
) -> Mounted:
    """Show the drive under `mountpoint`, an empty folder or one to be made; returns once it is usable.

    `hub` names the drive as in `credentials.drive`. With `foreground` this process serves it, and returns when it was
    unmounted or interrupted. Mounting the same drive there again changes nothing.

    Raises `MountpointInvalid`, `MountError` when FUSE refuses and there is no other way, and `SignInError`,
    `ConnectionFailed` or `InputError` when there is no drive to mount.
    """
    path = registry.absolute(mountpoint)
    server = credentials.drive(hub)
    _sweep()
    job = os.environ.get("HAVERSACK_JOB", "")
    record = MountRecord(
        str(path), registry.namespace(), "fuse", _where(server), _hub_of(server), not path.exists(), job
    )
    if (there := registry.find(path)) is not None and there.is_there():
        if there.where == record.where:
            return there.mounted()
        raise MountError(f"Another drive is mounted at {path} already.", "Unmount it first, or choose another folder.")
    check_mountpoint(path)
    if refusal := _fuse_refusal():
        return _link(record, server, refusal, readonly, foreground)
    if foreground:
        from haversack.drive.fuse.serving import serve

        serve(record, readonly)
        return record.mounted()
    try:
        return _spawn(record, server, readonly)
    except MountError as error:
        if server.folder is None or readonly:
            raise
        return _link(record, server, error.what, readonly, foreground)


def unmount(mountpoint: str | Path) -> None:
    """Take the drive away from `mountpoint`; returns once everything written is on it.

    Raises `MountError` when nothing is mounted there, or when something written did not reach the drive: it then waits
    on this machine, and goes up with the next mount.
    """
    path = registry.absolute(mountpoint)
    record = registry.find(path)
    if record is None:
        raise MountError(f"No drive is mounted at {path}.", "Check the path; `haversack drive status` lists mounts.")
    _unmount(record)
    _sweep()


def jobs() -> set[Path]:
    """The folders of the notebook jobs that have something mounted."""
    return {Path(record.job) for record in registry.records() if record.job}


def unmount_job(job: Path) -> list[Mounted]:
    """Unmount what the notebook job with the folder `job` left mounted, in whichever mount namespace that was.

    Returns what was mounted. Raises like `unmount`, the first error after all were tried.
    """
    own = [record for record in registry.records() if record.job == str(job)]
    failures = []
    for record in own:
        try:
            _unmount(record)
        except MountError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return [record.mounted() for record in own]


def is_mounted(mountpoint: str | Path) -> bool:
    """Whether `mount` put a drive there that is still usable."""
    record = registry.find(registry.absolute(mountpoint))
    return record is not None and record.is_there()


def is_registered(mountpoint: str | Path) -> bool:
    """Whether a drive was mounted there and not unmounted since; its process may be dead."""
    return registry.find(registry.absolute(mountpoint)) is not None


# Beginning


def _spawn(record: MountRecord, server: Server, readonly: bool) -> Mounted:
    """Have a process of its own serve the mount, and wait until it does."""
    environment = {**os.environ, "HAVERSACK_HUB": record.hub}
    if server.folder is None and server.sign_in is None:
        environment["HAVERSACK_TOKEN"] = server.secrets[0]
    log = record.file.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(log, "w") as output:
        process = subprocess.Popen(
            [place.interpreter(), "-m", "haversack.drive.fuse.serving"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env=environment,
            cwd="/",
            start_new_session=True,
            text=True,
        )
    assert process.stdin is not None
    with process.stdin as wanted:
        wanted.write(json.dumps({"record": asdict(record), "readonly": readonly}) + "\n")
    answer = _answer(process)
    if "ready" in answer:
        _daemons[record.mountpoint] = process
        return record.mounted()
    if process.poll() is None and not answer:
        process.kill()
    process.wait()
    clear_stale(Path(record.mountpoint))
    if record.made and Path(record.mountpoint).is_dir():
        Path(record.mountpoint).rmdir()
    kind = getattr(errors, answer.get("error", ""), MountError)
    if kind is not MountError:
        raise kind(answer["what"], answer["next_step"])
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    reason = answer.get("what") or (said[-1] if said else f"It was not ready after {_MOUNT_TIMEOUT:.0f} s.")
    raise MountError(f"The drive could not be mounted at {record.mountpoint}: {reason}", f"See {log}.")


def _answer(process: subprocess.Popen[str]) -> dict[str, str]:
    """What the serving process says when it is ready, or cannot be; {} when it says nothing."""
    assert process.stdout is not None
    with process.stdout as said:
        # Not `select`: a process that has a thousand files open can mount a drive too.
        ready = select.poll()
        ready.register(said, select.POLLIN)
        if not ready.poll(_MOUNT_TIMEOUT * 1000):
            return {}
        line = said.readline()
    return dict(json.loads(line)) if line else {}


def _fuse_refusal() -> str:
    """Why FUSE cannot be used here; "" when nothing speaks against it."""
    if os.environ.get("HAVERSACK_FUSE", "").lower() in ("off", "0", "no"):
        return "HAVERSACK_FUSE turns FUSE off."
    if sys.platform == "linux" and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "There is no /dev/fuse that may be used."
    if sys.platform == "linux" and os.getuid() and not (shutil.which("fusermount3") or shutil.which("fusermount")):
        return "fusermount3 is not installed."
    return "" if _has_libfuse() else "libfuse is not installed."


def _has_libfuse() -> bool:
    for name in ("libfuse3.so.3", "libfuse3.so.4", "libfuse.so.2"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return any(ctypes.util.find_library(name) for name in ("fuse3", "fuse", "fuse-t"))


def _link(record: MountRecord, server: Server, refusal: str, readonly: bool, foreground: bool) -> Mounted:
    if server.folder is None:
        raise MountError(
            f"{refusal} The drive cannot be mounted without FUSE.",
            f"To mount it, {_ENOUGH}; or copy with `haversack drive get`.",
        )
    if readonly:
        raise MountError(
            f"{refusal} A link in its place could not refuse writes.", f"Leave out readonly, or {_ENOUGH}."
        )
    path = Path(record.mountpoint)
    path.mkdir(exist_ok=True)
    (path / ROOT).symlink_to(server.folder, target_is_directory=True)
    (path / ALIAS).symlink_to(ROOT, target_is_directory=True)
    linked = replace(record, kind="link")
    linked.write()
    mounted = linked.mounted(f"{refusal} {path / ROOT} is a symbolic link to {server.folder}.")
    if not foreground:
        return mounted
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stopped.set())
    print(mounted.note, file=sys.stderr, flush=True)
    while not stopped.wait(1):
        continue
    _unmount(linked)
    return linked.mounted()


# Ending


def _unmount(record: MountRecord) -> None:
    path = Path(record.mountpoint)
    if record.kind == "link":
        _unlink(record)
    elif record.is_served():
        _end(record)
    else:
        _recover(record)
    if record.made and path.is_dir() and not any(path.iterdir()):
        path.rmdir()


def _end(record: MountRecord) -> None:
    """Ask the serving process to end, and wait until it has."""
    try:
        os.kill(record.pid, signal.SIGTERM)
    except PermissionError:
        raise MountError(f"{record.mountpoint} was mounted by another user.", "Unmount it as that user.") from None
    except ProcessLookupError:
        pass
    with progress.bar(f"Uploading to unmount {record.mountpoint}", None) as advance:
        last = record.activity().size
        while record.is_served():
            left = record.activity().size
            advance(max(last - left, 0))
            last = left
            time.sleep(0.05)
    if (process := _daemons.pop(record.mountpoint, None)) is not None:
        process.wait()
    now = registry.again(record)
    if now is None:
        return
    now.remove()
    if now.failed:
        raise MountError(now.failed, _LATER)
    # It died on the way, so what it had to upload is still to do.
    _recover(now)


def _recover(record: MountRecord) -> None:
    """End a mount whose process is dead: clear it away and upload what it left."""
    from haversack.drive import tree

    clear_stale(Path(record.mountpoint))
    try:
        failed = tree.connect(record.hub).journal.drain()
    except HaversackError as error:
        raise MountError(
            f"The process of the mount at {record.mountpoint} is dead, and the drive cannot be asked: {error}",
            "What was written waits on this machine and goes up with the next mount.",
        ) from error
    record.remove()
    if failed:
        raise MountError(f"{len(failed)} files are not on the drive: {next(iter(failed.values()))}", _LATER)


def _unlink(record: MountRecord) -> None:
    for name in (ALIAS, ROOT):
        link = Path(record.mountpoint) / name
        if link.is_symlink():
            link.unlink()
    record.remove()


def _sweep() -> None:
    """Clear away the mounts of dead processes, so that nobody stumbles over them.

    Where something that was written still waits for the drive, the record stays, and unmounting brings it there.
    """
    for record in registry.records():
        if record.kind != "fuse" or record.namespace != registry.namespace() or record.is_served():
            continue
        path = Path(record.mountpoint)
        clear_stale(path)
        if record.job or record.left():
            continue
        record.remove()
        if record.made and path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _where(server: Server) -> str:
    return f"this machine, in {server.folder}" if server.folder is not None else f"the {server.name} at {server.url}"


def _hub_of(server: Server) -> str:
    if server.folder is not None:
        return "embedded"
    return "google" if server.sign_in is not None else server.url
