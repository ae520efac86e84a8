"""The process that serves a mount: `python -m haversack.drive.fuse.serving`, started by `mount`.

It reads what to mount from standard input, as one line of JSON without secrets, and prints one line of JSON to standard
output: `{"ready": true}` once the mount is usable, or the error. From then on it is controlled by signals: at SIGTERM
it refuses new writes, uploads what is pending, and unmounts. While it lives it follows the drive's changes, reconnects
to an embedded hub that died, and publishes its activity.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from filelock import Timeout

from haversack import credentials
from haversack.drive import tree
from haversack.drive.fuse.libfuse import CalledOperations, Fuse
from haversack.drive.fuse.mountpoint import detach
from haversack.drive.fuse.operations import Operations
from haversack.drive.fuse.registry import Activity, MountRecord, PendingFile
from haversack.drive.tree import Drive
from haversack.errors import HaversackError, MountError

_log = logging.getLogger(__name__)

_TICK = 1.0
_SNAPSHOT_EVERY = 1800.0
_MAX_PENDING_LISTED = 20
# Seconds after which Python switches threads. An answer to the kernel takes less than Python's default of 5 ms, and a
# program waits for it, while another thread may be busy with a page of a listing.
SWITCH_INTERVAL = 0.0005


class Mountable(CalledOperations, Protocol):
    """FUSE operations that set `ready` once the Linux kernel has mounted them."""

    ready: threading.Event


def serve(record: MountRecord, readonly: bool, on_ready: Callable[[], None] = lambda: None) -> None:
    """Mount a drive and serve it until a signal (SIGTERM, SIGINT, SIGHUP) or an unmount; then upload what is pending.

    Args:
        record: the mount to serve; it is written to the registry, with `pid` and `journal` set, once it is usable.
        readonly: answer `EROFS` to writes.
        on_ready: called once the mount is usable.

    Signals are handled only if this is the main thread. Raises `MountError` if another process serves the mountpoint,
    FUSE refuses, or a file could not be uploaded at the end; and `SignInError`, `InputError`, `ConnectionFailed` or
    `RemoteError` if the drive cannot be reached at the start.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stopped = threading.Event()
    if threading.current_thread() is threading.main_thread():
        # Without these, libfuse would install handlers that unmount at once, before pending files are uploaded.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: stopped.set())
    try:
        with record.serving(timeout=5):
            drive = tree.connect(record.hub)
            drive.journal.job = record.job
            served = replace(record, pid=os.getpid(), journal=str(drive.journal.home))
            _serve(served, drive, readonly, stopped, on_ready)
    except Timeout:
        raise MountError(
            f"Another process is mounting a drive at {record.mountpoint}.", "Wait until it has, or unmount that drive."
        ) from None


def _serve(
    record: MountRecord, drive: Drive, readonly: bool, stopped: threading.Event, on_ready: Callable[[], None]
) -> None:
    """Mount, publish the record, and block until `stopped` is set; then drain and unmount. Raises `MountError`."""
    Path(record.mountpoint).mkdir(exist_ok=True)
    operations = Operations(drive, record.mountpoint, readonly)
    fuse = start_fuse(operations, record.mountpoint, readonly, stopped)
    record.write()
    on_ready()
    operations.kernel_cache.raise_read_ahead()
    unsubscribe = drive.subscribe(operations.invalidate)
    monitor = _MountMonitor(record, drive, readonly)
    while not stopped.wait(_TICK):
        monitor.tick()
    unsubscribe()
    _drain_and_unmount(record, operations, fuse, monitor)


def start_fuse(operations: Mountable, mountpoint: str, readonly: bool, stopped: threading.Event) -> threading.Thread:
    """Mount in a thread, and return the thread once the mount is usable. The thread sets `stopped` when it ends.

    Raises `MountError` if FUSE refuses.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            Fuse(operations, mountpoint, readonly)
        except Exception as error:  # noqa: BLE001 - the calling thread raises it
            errors.append(error)
        finally:
            stopped.set()

    fuse = threading.Thread(target=run, name="fuse", daemon=True)
    fuse.start()
    while not operations.ready.wait(0.01) and not stopped.is_set():
        continue
    if not operations.ready.is_set():
        why = f" ({errors[0]})" if errors else ""
        raise MountError(f"FUSE refused to mount at {mountpoint}{why}.", "Read libfuse's message in the log.")
    return fuse


class _MountMonitor:
    """What is done every second while a mount is served: reconnect to the embedded hub, and publish the activity.

    Every half hour, the index's snapshot is saved on a thread of its own.
    """

    def __init__(self, record: MountRecord, drive: Drive, readonly: bool) -> None:
        self._record = record
        self._drive = drive
        self._readonly = readonly
        self._published = Activity()
        # When the byte counters were read last, and bytes sent and received until then.
        self._counters = (time.monotonic(), 0, 0)
        self._snapshot_saved = time.monotonic()

    def tick(self) -> None:
        self._reconnect()
        self.publish_activity()
        if time.monotonic() - self._snapshot_saved > _SNAPSHOT_EVERY:
            threading.Thread(target=self.save_snapshot, daemon=True).start()

    def save_snapshot(self) -> None:
        """Save the index's snapshot to the drive, unless the mount is read-only or too little has changed.

        Of the errors, a `HaversackError` is only logged.
        """
        self._snapshot_saved = time.monotonic()
        if not self._readonly:
            self._drive.save_snapshot()

    def publish_activity(self) -> None:
        """Write the activity for other processes if it changed; `age` alone does not count. Logs a full disk."""
        activity = self._activity()
        if replace(activity, age=None) == replace(self._published, age=None):
            return
        try:
            self._record.write_activity(activity)
        except OSError as error:  # a full disk must not stop the uploads
            _log.warning("The mount's activity could not be written: %s", error)
        self._published = activity

    def _reconnect(self) -> None:
        """Find the embedded hub, starting it if it died, and use its new address. Logs a failure."""
        if self._drive.server.folder is None:
            return
        try:
            server = credentials.drive(self._record.hub)
        except HaversackError as error:
            _log.warning("%s", error)
            return
        if server != self._drive.server:
            self._drive.server = self._drive.api.server = self._drive.api.http.server = server

    def _activity(self) -> Activity:
        """Return the current activity; its rates are averages since the previous call."""
        pending = self._drive.journal.pending()
        pending.sort(key=lambda draft: (draft.error is None, not draft.uploading))
        known = self._drive.known()
        (before, sent, received), self._counters = (
            self._counters,
            (
                time.monotonic(),
                self._drive.journal.uploader.sent,
                self._drive.content.received,
            ),
        )
        seconds = max(self._counters[0] - before, 0.001)
        return Activity(
            pending=len(pending),
            size=sum(draft.size - draft.moved for draft in pending),
            failed=sum(draft.error is not None for draft in pending),
            uploading=sum(draft.uploading for draft in pending),
            up=round((self._counters[1] - sent) / seconds),
            down=round((self._counters[2] - received) / seconds),
            names=known.names,
            folders=known.folders,
            age=known.age,
            trouble=known.trouble,
            waiting=[
                PendingFile(draft.name, draft.size, draft.moved, draft.uploading, str(draft.error or ""))
                for draft in pending[:_MAX_PENDING_LISTED]
            ],
        )


def _drain_and_unmount(
    record: MountRecord, operations: Operations, fuse: threading.Thread, monitor: _MountMonitor
) -> None:
    """Refuse writes, upload what is pending, unmount, and remove the record.

    If a file could not be uploaded, keeps the record with `failed` set, and raises `MountError`.
    """
    operations.refuse_writes()
    published = 0.0

    def on_progress(files: int, size: int) -> None:
        nonlocal published
        if time.monotonic() - published > 0.3:
            published = time.monotonic()
            monitor.publish_activity()

    failed = operations.drive.journal.drain(on_progress)
    if fuse.is_alive():
        detach(Path(record.mountpoint))
        fuse.join(1)
    monitor.save_snapshot()
    if not failed:
        operations.drive.journal.close()
        record.remove()
        return
    names = ", ".join(draft.name for draft in list(failed)[:3]) + (", …" if len(failed) > 3 else "")
    what = f"{len(failed)} files are not on the drive ({names}): {next(iter(failed.values()))}"
    replace(record, failed=what).write()
    raise MountError(what, "They stay on this machine and are uploaded by the next mount.")


def main() -> None:
    """Read a mount from standard input, answer on standard output, and serve it; exit with 1 on an error."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    request = json.loads(sys.stdin.readline())
    output = os.dup(1)
    os.dup2(2, 1)  # what libraries print goes to the log

    def answer(values: dict[str, object]) -> None:
        os.write(output, json.dumps(values).encode() + b"\n")
        os.close(output)

    record, is_answered = MountRecord(**request["record"]), threading.Event()

    def on_ready() -> None:
        is_answered.set()
        answer({"ready": True})

    try:
        serve(record, request["readonly"], on_ready)
    except HaversackError as error:
        if not is_answered.is_set():
            answer({"error": type(error).__name__, "what": error.what, "next_step": error.next_step})
        _log.error("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
