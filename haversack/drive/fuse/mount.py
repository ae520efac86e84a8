"""Mount a drive and unmount it.

A mount is served by a process of its own (`serving`), which outlives the process that asked for it. It gets the drive's
token in its environment and holds a lease of the embedded hub. A record in the data folder (`registry`) lets any
process unmount it. Unmounting refuses new writes, uploads what is pending, and then detaches the mount.

Where FUSE cannot be used, the embedded drive, an ordinary folder of this machine, is mounted as a symbolic link. The
mounting process does not connect to the drive, so it does not import what that needs; the serving process does.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
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

_MOUNT_TIMEOUT = 60.0
_INSTALL_FUSE = "install fuse3 (Debian: apt-get install fuse3)"
_UPLOADED_LATER = "They stay on this machine and are uploaded by the next mount."
# Serving processes that this process started, by mountpoint.
_serving_processes: dict[str, subprocess.Popen[str]] = {}


def mount(
    mountpoint: str | Path, *, hub: str | None = None, readonly: bool = False, foreground: bool = False
) -> Mounted:
    """Mount a drive as files; return what is mounted, once it is usable.

    If the same drive is mounted there already, returns that mount. Mounts in this mount namespace whose serving process
    is dead are detached first.

    Args:
        mountpoint: an empty folder, or one that does not exist yet in a folder that does.
        hub: the drive: a hub's URL, "google", "embedded", or None for the default of `credentials.drive`.
        readonly: refuse every write with `EROFS`.
        foreground: serve the mount in this process; returns once it was unmounted, or after SIGINT, SIGTERM or SIGHUP.

    Where FUSE cannot be used, the embedded drive becomes a symbolic link; `Mounted.kind` and `note` say so.

    Raises `MountpointInvalid` if the folder cannot be mounted on; `MountError` if another drive is mounted there, if
    FUSE cannot be used and a link is not possible, if the serving process is not ready after 60 seconds, or, with
    `foreground`, if a written file could not be uploaded at the end; `SignInError` if no sign-in is found or it is
    refused; `InputError` for an invalid `hub`; `ConnectionFailed` or `RemoteError` if the drive does not answer or
    answers with an error.
    """
    path = registry.absolute(mountpoint)
    server = credentials.drive(hub)
    _clear_dead_mounts()
    job = os.environ.get("HAVERSACK_JOB", "")
    record = MountRecord(
        str(path), registry.namespace(), "fuse", _location(server), _hub_name(server), not path.exists(), job
    )
    if (present := registry.find(path)) is not None and present.is_usable():
        if present.where == record.where:
            return present.mounted()
        raise MountError(f"Another drive is mounted at {path} already.", "Unmount it first, or choose another folder.")
    check_mountpoint(path)
    if why_not := why_no_fuse():
        return _link(record, server, why_not, readonly, foreground)
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
    """Unmount the drive at `mountpoint`; returns once everything written is on the drive.

    If the serving process is dead, what it left is uploaded from here. A mountpoint that `mount` created is removed.
    Raises `MountError` if no drive is mounted there, if it was mounted by another user, or if a written file could not
    be uploaded or the drive cannot be reached: the files stay on this machine, and the next mount uploads them.
    """
    path = registry.absolute(mountpoint)
    record = registry.find(path)
    if record is None:
        raise MountError(f"No drive is mounted at {path}.", "Check the path; `haversack drive status` lists mounts.")
    _unmount(record)
    _clear_dead_mounts()


def jobs() -> set[Path]:
    """Return the folders of the notebook jobs that own a mount: a job owns the mounts that its notebook made."""
    return {Path(record.job) for record in registry.records() if record.job}


def unmount_job(job: Path) -> list[Mounted]:
    """Unmount every mount that was made by the notebook job with the folder `job`, in any mount namespace.

    Returns what was mounted. Raises the first `MountError` (see `unmount`), after all mounts were tried.
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
    """Whether a drive is mounted at `mountpoint`, its serving process is alive, and this process can use it."""
    record = registry.find(registry.absolute(mountpoint))
    return record is not None and record.is_usable()


def is_registered(mountpoint: str | Path) -> bool:
    """Whether a drive was mounted at `mountpoint` and not unmounted since; its serving process may be dead."""
    return registry.find(registry.absolute(mountpoint)) is not None


# Mounting


def _spawn(record: MountRecord, server: Server, readonly: bool) -> Mounted:
    """Start a serving process and wait until the mount is usable.

    Raises the haversack error that the process reports; if it reports none within 60 seconds, or dies, `MountError`
    with the last line of its log. The mountpoint is then left as it was before.
    """
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
    with process.stdin as request:
        request.write(json.dumps({"record": asdict(record), "readonly": readonly}) + "\n")
    answer = _read_answer(process)
    if "ready" in answer:
        _serving_processes[record.mountpoint] = process
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
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    reason = answer.get("what") or (lines[-1] if lines else f"It was not ready after {_MOUNT_TIMEOUT:.0f} s.")
    raise MountError(f"The drive could not be mounted at {record.mountpoint}: {reason}", f"See {log}.")


def _read_answer(process: subprocess.Popen[str]) -> dict[str, str]:
    """Return the serving process's answer; {} if it closes its output or 60 seconds pass without one."""
    assert process.stdout is not None
    with process.stdout as output:
        # Not `select`, which fails in a process with more than 1,023 open files.
        ready = select.poll()
        ready.register(output, select.POLLIN)
        if not ready.poll(_MOUNT_TIMEOUT * 1000):
            return {}
        line = output.readline()
    return dict(json.loads(line)) if line else {}


def why_no_fuse() -> str:
    """Return, as a sentence, why FUSE cannot be used here; "" if it probably can. Nothing is mounted to try it."""
    if os.environ.get("HAVERSACK_FUSE", "").lower() in ("off", "0", "no"):
        return "HAVERSACK_FUSE turns FUSE off."
    if sys.platform == "linux" and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is missing, or not open to this user."
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


def _link(record: MountRecord, server: Server, why_no_fuse: str, readonly: bool, foreground: bool) -> Mounted:
    """Mount the embedded drive as a symbolic link; with `foreground`, wait for a signal and unmount it.

    Raises `MountError` for a remote drive, which has no local folder, and for a read-only mount.
    """
    if server.folder is None:
        raise MountError(
            f"{why_no_fuse} The drive cannot be mounted without FUSE.",
            f"To mount it, {_INSTALL_FUSE}; or copy files with `haversack drive get`.",
        )
    if readonly:
        raise MountError(
            f"{why_no_fuse} A symbolic link in place of the mount could not refuse writes.",
            f"Leave out readonly, or {_INSTALL_FUSE}.",
        )
    path = Path(record.mountpoint)
    path.mkdir(exist_ok=True)
    (path / ROOT).symlink_to(server.folder, target_is_directory=True)
    (path / ALIAS).symlink_to(ROOT, target_is_directory=True)
    linked = replace(record, kind="link")
    linked.write()
    mounted = linked.mounted(f"{why_no_fuse} {path / ROOT} is a symbolic link to {server.folder}.")
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


# Unmounting


def _unmount(record: MountRecord) -> None:
    """Unmount in whichever way the mount's state needs, and remove the mountpoint if `mount` created it."""
    path = Path(record.mountpoint)
    if record.kind == "link":
        _remove_links(record)
    elif record.is_served():
        _stop(record)
    else:
        _recover(record)
    if record.made and path.is_dir() and not any(path.iterdir()):
        path.rmdir()


def _stop(record: MountRecord) -> None:
    """Send SIGTERM to the serving process, show its uploads until it ends, and remove the record.

    If the process dies before it has drained, recovers the mount. Raises `MountError` if a file could not be uploaded.
    """
    try:
        os.kill(record.pid, signal.SIGTERM)
    except PermissionError:
        raise MountError(f"{record.mountpoint} was mounted by another user.", "Unmount it as that user.") from None
    except ProcessLookupError:
        pass
    with progress.bar(f"Uploading to unmount {record.mountpoint}", None) as advance:
        last = record.read_activity().size
        while record.is_served():
            left = record.read_activity().size
            advance(max(last - left, 0))
            last = left
            time.sleep(0.05)
    if (process := _serving_processes.pop(record.mountpoint, None)) is not None:
        process.wait()
    now = registry.reload(record)
    if now is None:
        return
    now.remove()
    if now.failed:
        raise MountError(now.failed, _UPLOADED_LATER)
    # The process died before it had drained.
    _recover(now)


def _recover(record: MountRecord) -> None:
    """Clear a mount whose process is dead, upload from this process what is pending, and remove the record.

    Raises `MountError` if the drive cannot be reached, which keeps the record, or if a file could not be uploaded.
    """
    from haversack.drive import tree

    clear_stale(Path(record.mountpoint))
    try:
        failed = tree.connect(record.hub).journal.drain()
    except HaversackError as error:
        raise MountError(
            f"The process of the mount at {record.mountpoint} is dead, and the drive cannot be reached: {error}",
            "Written files stay on this machine and are uploaded by the next mount.",
        ) from error
    record.remove()
    if failed:
        raise MountError(f"{len(failed)} files are not on the drive: {next(iter(failed.values()))}", _UPLOADED_LATER)


def _remove_links(record: MountRecord) -> None:
    for name in (ALIAS, ROOT):
        link = Path(record.mountpoint) / name
        if link.is_symlink():
            link.unlink()
    record.remove()


def _clear_dead_mounts() -> None:
    """Detach the mounts of dead processes in this namespace, and remove their records and created mountpoints.

    A record stays if a job owns the mount, or if files of its drive are pending: unmounting it then uploads them.
    """
    for record in registry.records():
        if record.kind != "fuse" or record.namespace != registry.namespace() or record.is_served():
            continue
        path = Path(record.mountpoint)
        clear_stale(path)
        if record.job or record.pending_files():
            continue
        record.remove()
        if record.made and path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _location(server: Server) -> str:
    """Describe in words where the bytes of a drive are."""
    return f"this machine, in {server.folder}" if server.folder is not None else f"the {server.name} at {server.url}"


def _hub_name(server: Server) -> str:
    """Return what names the drive to `credentials.drive` in the serving process."""
    if server.folder is not None:
        return "embedded"
    return "google" if server.sign_in is not None else server.url
