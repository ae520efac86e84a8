"""Who mounts the drive: haversack and rclone, each with a home of its own in which nothing is known or cached."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rehearsal import Server

_TUNED = ("--drive-pacer-min-sleep", "10ms", "--fast-list", "--transfers", "16", "--checkers", "16")


@dataclass(frozen=True)
class Mount:
    """A drive among this machine's files; `pid` is the process that serves it."""

    drive: Path
    pid: int


class Haversack:
    name = "haversack"

    @contextmanager
    def mounted(self, server: Server) -> Iterator[Mount]:
        """A mount that is usable. It is killed at the end, so that it leaves nothing on the drive."""
        with tempfile.TemporaryDirectory(dir=server.scratch) as home:
            mountpoint = Path(home) / "mnt"
            self._run(server, mountpoint, "mount", str(mountpoint), "--hub", server.url)
            [record] = (Path(home) / "data" / "mounts").glob("*.json")
            mount = Mount(mountpoint / "My Drive", json.loads(record.read_text())["pid"])
            try:
                yield mount
            finally:
                if os.path.ismount(mountpoint):
                    os.kill(mount.pid, signal.SIGKILL)
                    _detach(mountpoint)

    def unmount(self, server: Server, mount: Mount) -> None:
        """Unmount as a user does: what was written is on the drive then, and what is known, for the next machine."""
        self._run(server, mount.drive.parent, "unmount", str(mount.drive.parent))

    def run(self, server: Server, *arguments: str) -> str:
        """What another of its commands prints, on a machine that knows nothing."""
        with tempfile.TemporaryDirectory(dir=server.scratch) as home:
            return self._run(server, Path(home) / "mnt", *arguments, "--hub", server.url)

    @staticmethod
    def _run(server: Server, mountpoint: Path, *arguments: str) -> str:
        home = mountpoint.parent
        folders = {"HAVERSACK_DATA": str(home / "data"), "HAVERSACK_CACHE": str(home / "cache")}
        environment = {**os.environ, **folders, "HAVERSACK_TOKEN": server.token}
        command = [sys.executable, "-m", "haversack", *arguments]
        # Not a pipe: a mount's process, which lives on, would hold it open.
        with tempfile.TemporaryFile("w+") as printed:
            subprocess.run(command, env=environment, check=True, stdout=printed)
            printed.seek(0)
            return printed.read()


class Rclone:
    """rclone as it comes, or with the flags that its users pass on to each other."""

    def __init__(self, tuned: bool = False) -> None:
        self.name = "rclone, tuned" if tuned else "rclone"
        self._flags = _TUNED if tuned else ()

    @contextmanager
    def mounted(self, server: Server) -> Iterator[Mount]:
        with tempfile.TemporaryDirectory(dir=server.scratch) as home:
            mountpoint = Path(home) / "mnt"
            mountpoint.mkdir()
            cached = ("--vfs-cache-mode", "full", "--vfs-write-back", "0s", "--cache-dir", str(Path(home) / "cache"))
            process = subprocess.Popen(
                ["rclone", "mount", "hub:", str(mountpoint), *cached, *self._flags], env=self._environment(server)
            )
            try:
                while not os.path.ismount(mountpoint):
                    if process.poll() is not None:
                        raise SystemExit("rclone did not mount.")
                    time.sleep(0.01)
                yield Mount(mountpoint, process.pid)
            finally:
                process.kill()
                process.wait()
                _detach(mountpoint)

    def run(self, server: Server, *arguments: str) -> str:
        """What another of its commands prints."""
        command = ["rclone", *arguments, *self._flags]
        return subprocess.run(
            command, env=self._environment(server), check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    @staticmethod
    def _environment(server: Server) -> dict[str, str]:
        config = server.scratch / "rclone.conf"
        token = {"access_token": server.token, "token_type": "Bearer", "expiry": "2099-01-01T00:00:00Z"}
        config.write_text(f"[hub]\ntype = drive\nscope = drive\ntoken = {json.dumps(token)}\n")
        reached = {"HTTPS_PROXY": server.proxy, "RCLONE_CA_CERT": server.authority, "RCLONE_CONFIG": str(config)}
        return {**os.environ, **reached}


Client = Haversack | Rclone


def _detach(mountpoint: Path) -> None:
    # Whoever was interrupted as well has let go of it already.
    subprocess.run(["fusermount3", "-u", "-z", str(mountpoint)], check=False, stderr=subprocess.DEVNULL)
