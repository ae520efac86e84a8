"""The process that serves a mount: `python -m haversack.drive.fuse.serving`, started by `mount`.

It is told on standard input what to mount, as one line of JSON without secrets, and answers on standard output with one
line when the mount can be used, or with why it cannot. From then on it is told by signals: at SIGTERM it refuses new
writes, brings what is pending onto the drive, and lets the mount go. While it lives it takes over what others change,
finds the embedded hub again where that died, and writes down what goes on.
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

from filelock import Timeout

from haversack import credentials
from haversack.drive import tree
from haversack.drive.fuse.libfuse import Fuse
from haversack.drive.fuse.mountpoint import detach
from haversack.drive.fuse.operations import Operations
from haversack.drive.fuse.registry import Activity, MountRecord, Waiting
from haversack.drive.tree import Drive
from haversack.errors import HaversackError, MountError

_log = logging.getLogger(__name__)

_TICK = 1.0
_SNAPSHOT_EVERY = 1800.0
_SHOWN = 20
# Seconds after which a thread gives way. An answer to the kernel is ready in less than Python's own 5 ms, and whoever
# asked waits for it, while another thread takes in what was listed.
_TURN = 0.0005


def serve(record: MountRecord, readonly: bool, ready: Callable[[], None] = lambda: None) -> None:
    """Serve a mount until it is asked to end.

    Raises `MountError` when FUSE refuses, or bytes are not on the drive, and what connecting to the drive raises.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stopped = threading.Event()
    if threading.current_thread() is threading.main_thread():
        # Handlers of our own keep libfuse from ending at the signal, before what is pending is on the drive.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: stopped.set())
    try:
        with record.served(timeout=5):
            drive = tree.connect(record.hub)
            _serve(replace(record, pid=os.getpid(), journal=str(drive.journal.home)), drive, readonly, stopped, ready)
    except Timeout:
        raise MountError(f"A drive is being mounted at {record.mountpoint} already.", "Wait for it.") from None


def _serve(
    record: MountRecord, drive: Drive, readonly: bool, stopped: threading.Event, ready: Callable[[], None]
) -> None:
    Path(record.mountpoint).mkdir(exist_ok=True)
    operations = Operations(drive, record.mountpoint, readonly)
    refused: list[BaseException] = []

    def run() -> None:
        try:
            Fuse(operations, record.mountpoint, readonly)
        except Exception as error:  # noqa: BLE001 - handed to the main thread, which says it
            refused.append(error)
        finally:
            stopped.set()

    serving = threading.Thread(target=run, name="fuse", daemon=True)
    serving.start()
    while not operations.ready.wait(0.01) and not stopped.is_set():
        continue
    if not operations.ready.is_set():
        why = f" ({refused[0]})" if refused else ""
        raise MountError(f"FUSE refused to mount at {record.mountpoint}{why}.", "Its own words stand in the log.")
    record.write()
    ready()
    operations.kernel.read_further_ahead()
    unsubscribe = drive.subscribe(operations.changed)
    watch = _MountMonitor(record, drive, readonly)
    while not stopped.wait(_TICK):
        watch.tick()
    unsubscribe()
    _finish(record, operations, serving, watch)


class _MountMonitor:
    """What is done every second while a mount is served."""

    def __init__(self, record: MountRecord, drive: Drive, readonly: bool) -> None:
        self._record = record
        self._drive = drive
        self._readonly = readonly
        self._told = Activity()
        self._moved = (time.monotonic(), 0, 0)
        self._saved = time.monotonic()

    def tick(self) -> None:
        self._find_hub()
        self.tell()
        if time.monotonic() - self._saved > _SNAPSHOT_EVERY:
            threading.Thread(target=self.save_snapshot, daemon=True).start()

    def save_snapshot(self) -> None:
        """Keep what is known for the next machine."""
        self._saved = time.monotonic()
        if not self._readonly:
            self._drive.save_snapshot()

    def tell(self) -> None:
        """Write down what goes on, where something does."""
        activity = self._activity()
        if replace(activity, age=None) == replace(self._told, age=None):
            return
        try:
            self._record.tell(activity)
        except OSError as error:  # a full disk: the mount goes on, and brings to the drive what it has
            _log.warning("What goes on cannot be written down: %s", error)
        self._told = activity

    def _find_hub(self) -> None:
        """An embedded hub that died is started anew by whoever needs it, at another address."""
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
        pending = self._drive.journal.pending()
        pending.sort(key=lambda draft: (draft.error is None, not draft.uploading))
        known = self._drive.known()
        (before, sent, received), self._moved = (
            self._moved,
            (
                time.monotonic(),
                self._drive.journal.uploading.sent,
                self._drive.content.received,
            ),
        )
        seconds = max(self._moved[0] - before, 0.001)
        return Activity(
            pending=len(pending),
            size=sum(draft.size - draft.moved for draft in pending),
            failed=sum(draft.error is not None for draft in pending),
            uploading=sum(draft.uploading for draft in pending),
            up=round((self._moved[1] - sent) / seconds),
            down=round((self._moved[2] - received) / seconds),
            names=known.names,
            folders=known.folders,
            age=known.age,
            trouble=known.trouble,
            waiting=[
                Waiting(draft.name, draft.size, draft.moved, draft.uploading, str(draft.error or ""))
                for draft in pending[:_SHOWN]
            ],
        )


def _finish(record: MountRecord, operations: Operations, serving: threading.Thread, watch: _MountMonitor) -> None:
    """Upload what is pending, let the mount go, and leave word in the registry when something did not arrive."""
    operations.refuse_writes()
    told = 0.0

    def tell(files: int, size: int) -> None:
        nonlocal told
        if time.monotonic() - told > 0.3:
            told = time.monotonic()
            watch.tell()

    failed = operations.drive.journal.drain(tell)
    if serving.is_alive():
        detach(Path(record.mountpoint))
        serving.join(1)
    watch.save_snapshot()
    if not failed:
        operations.drive.journal.close()
        record.remove()
        return
    names = ", ".join(draft.name for draft in list(failed)[:3]) + (", …" if len(failed) > 3 else "")
    what = f"{len(failed)} files are not on the drive ({names}): {next(iter(failed.values()))}"
    replace(record, failed=what).write()
    raise MountError(what, "They wait on this machine and go up with the next mount.")


def main() -> None:
    """Serve what standard input tells of."""
    sys.setswitchinterval(_TURN)
    wanted = json.loads(sys.stdin.readline())
    answer = os.dup(1)
    os.dup2(2, 1)  # whatever libraries print belongs into the log

    def say(what: dict[str, object]) -> None:
        os.write(answer, json.dumps(what).encode() + b"\n")
        os.close(answer)

    record, said = MountRecord(**wanted["record"]), []

    def ready() -> None:
        said.append(True)
        say({"ready": True})

    try:
        serve(record, wanted["readonly"], ready)
    except HaversackError as error:
        if not said:
            say({"error": type(error).__name__, "what": error.what, "next_step": error.next_step})
        _log.error("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
