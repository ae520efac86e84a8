"""What work on a drive costs with haversack, and with what else there is, against the same hub at 50 ms per call.

    uv run python bench/drive.py open --scratch /var/tmp/drives            # all who do that work, one after another
    uv run python bench/drive.py open --scratch /var/tmp/drives --clients haversack --rounds 3
    uv run python bench/drive.py walk --scratch /var/tmp/drives --files 39000 --folders 10600

The clients are haversack's mount, rclone (as it comes, and with `--drive-pacer-min-sleep 10ms --fast-list
--transfers 16 --checkers 16`), Google's own client for Python, and bare HTTP. Each begins knowing nothing, in a home
of its own; the drives are made by hand in the hub's folder, and kept in `--scratch` for the next run. Calls are those
that the hub answered. gdrive-fsspec is left out: it speaks Drive v2 in part, which the hub does not.

Results are printed, and put into `bench/results/drive.json` beside what was measured before.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import folders
from clients import Client, Haversack, Rclone
from record import Record
from rehearsal import Server, serving

RECORD = Record("drive", ("haversack", "aiohttp", "mfusepy", "google-api-python-client"))
READERS = 16
WARM = 100
BLOCK = 1 << 20
_RATE_FOR = 2.0
_PLAIN = {"Content-Type": "application/octet-stream"}

Figures = dict[str, Any]
HAVERSACK, RCLONE, TUNED = Haversack(), Rclone(), Rclone(tuned=True)


@dataclass(frozen=True)
class Sizes:
    """How much there is, by argument; `scratch` is where the drives are kept."""

    scratch: Path
    latency: str
    files: int
    folders: int
    megabytes: int

    @property
    def last(self) -> str:
        """A file with bytes in the crowded folder, far from its first."""
        return folders.small_in_crowd(self.files)[-2]


Measure = Callable[[Server, Sizes], Figures]


@dataclass(frozen=True)
class Line:
    """One kind of work: the drive it is done on, and how each client does it."""

    says: str
    on: Callable[[Sizes], AbstractContextManager[Server]]
    by: dict[str, Measure]
    files: int = 0


# The drives


def crowd(sizes: Sizes) -> AbstractContextManager[Server]:
    return serving(folders.crowded(sizes.scratch, sizes.files), sizes.latency, known=sizes.last)


def walk(sizes: Sizes) -> AbstractContextManager[Server]:
    root = folders.walked(sizes.scratch, sizes.folders, sizes.files)
    return serving(root, sizes.latency, known=f"{sizes.files - 1:06d}.png")


def ordinary(sizes: Sizes) -> AbstractContextManager[Server]:
    return serving(folders.ordinary(sizes.scratch, sizes.megabytes), sizes.latency, known="large.bin")


# Opening


def open_one(client: Client, server: Server, sizes: Sizes) -> Figures:
    with client.mounted(server) as mount:
        return server.timed(lambda: read(mount.drive / "crowd" / sizes.last))


def open_one_by_google(server: Server, sizes: Sizes) -> Figures:
    files = server.google().files()

    def find_and_read() -> None:
        [folder] = files.list(q="name = 'crowd' and 'root' in parents", fields="files(id)").execute()["files"]
        query = f"name = '{sizes.last}' and '{folder['id']}' in parents"
        [file] = files.list(q=query, fields="files(id)").execute()["files"]
        assert len(files.get_media(fileId=file["id"]).execute()) == folders.SMALL_SIZE

    return server.timed(find_and_read)


def first_ls(client: Client, server: Server, sizes: Sizes) -> Figures:
    """From the beginning of `mount`; also what its processes took of the cores, which others cannot disturb."""
    begin, before = time.perf_counter(), os.times()
    with client.mounted(server) as mount:
        assert "notebooks" in os.listdir(mount.drive)
        seconds, after = time.perf_counter() - begin, os.times()
        ended = after.children_user + after.children_system - before.children_user - before.children_system
        return {"seconds": seconds, "seconds of a core": ended + of_a_core(mount.pid)}


def of_a_core(pid: int) -> float:
    """The seconds that a process has had of the cores."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# Small files


def read_small(client: Client, server: Server, sizes: Sizes) -> Figures:
    with ThreadPoolExecutor(READERS) as readers, client.mounted(server) as mount:
        paths = [mount.drive / "crowd" / name for name in folders.small_in_crowd(sizes.files)]
        random.Random(0).shuffle(paths)
        # rclone lists the folder at the first of its names; that is measured by itself.
        (mount.drive / "crowd" / folders.name_in_crowd(1)).stat()
        return server.timed(lambda: list(readers.map(read, paths)))


def write_small(server: Server, sizes: Sizes) -> Figures:
    source, name = folders.source(sizes.scratch), f"new {time.time()}"
    with HAVERSACK.mounted(server) as mount:

        def copy_and_unmount() -> None:
            shutil.copytree(source, mount.drive / name)
            HAVERSACK.unmount(server, mount)

        return are_there(server, name, server.timed(copy_and_unmount))


def copy_small(client: Rclone, server: Server, sizes: Sizes) -> Figures:
    source, name = folders.source(sizes.scratch), f"new {time.time()}"
    return are_there(server, name, server.timed(lambda: client.run(server, "copy", str(source), f"hub:{name}")))


def are_there(server: Server, name: str, figures: Figures) -> Figures:
    """The figures, once all that was written is found on the drive; it is removed again."""
    sizes = [file.stat().st_size for file in (server.drive / name).iterdir()]
    assert sizes == [folders.SMALL_SIZE] * folders.SMALL
    shutil.rmtree(server.drive / name)
    return figures


# A large file


def read_large(client: Client, server: Server, sizes: Sizes) -> Figures:
    with client.mounted(server) as mount:
        return rate(sizes, server.timed(lambda: read_through(mount.drive / "large.bin", sizes)))


def read_through(path: Path, sizes: Sizes) -> None:
    buffer, passed = bytearray(BLOCK), 0
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            passed += count
    assert passed == sizes.megabytes * 10**6


def get_large(server: Server, sizes: Sizes) -> Figures:
    """One ranged GET of the whole file, its bytes read and let go."""
    file, connection = server.id_of("large.bin"), server.connection()

    def get() -> None:
        headers = {"Authorization": f"Bearer {server.token}", "Range": "bytes=0-"}
        connection.request("GET", f"/drive/v3/files/{file}?alt=media", headers=headers)
        answer, buffer, passed = connection.getresponse(), bytearray(BLOCK), 0
        while count := answer.readinto(buffer):
            passed += count
        assert passed == sizes.megabytes * 10**6

    return rate(sizes, server.timed(get))


def write_large(client: Client, server: Server, sizes: Sizes) -> Figures:
    """Written, synced and closed; rclone uploads behind that, so it is waited for."""
    block, name = os.urandom(10**6), f"written {time.time()}.bin"
    there = server.drive / name
    with client.mounted(server) as mount:

        def write() -> None:
            with open(mount.drive / name, "wb", buffering=0) as file:
                for _ in range(sizes.megabytes):
                    file.write(block)
                os.fsync(file.fileno())
            while not there.exists() or there.stat().st_size < sizes.megabytes * 10**6:
                time.sleep(0.01)

        figures = rate(sizes, server.timed(write))
    there.unlink()
    return figures


def put_large(server: Server, sizes: Sizes) -> Figures:
    """One resumable upload in one piece."""
    block, name, connection = os.urandom(10**6), f"put {time.time()}.bin", server.connection()
    headers = {"Authorization": f"Bearer {server.token}"}

    def put() -> None:
        target, body = "/upload/drive/v3/files?uploadType=resumable", f'{{"name": "{name}"}}'
        connection.request("POST", target, body, {**headers, "Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        length = {"Content-Length": str(sizes.megabytes * 10**6)}
        blocks = (block for _ in range(sizes.megabytes))
        connection.request("PUT", answer.headers["Location"], blocks, {**headers, **_PLAIN, **length})
        assert connection.getresponse().status == 200

    figures = rate(sizes, server.timed(put))
    (server.drive / name).unlink()
    return figures


def rate(sizes: Sizes, figures: Figures) -> Figures:
    return {**figures, "MB/s": sizes.megabytes / figures["seconds"]}


# Walking


def find_at_once(client: Client, server: Server, sizes: Sizes) -> Figures:
    """From the beginning of `mount` to the end of `find`, and what the process that serves it took of the cores."""

    def mount_and_find() -> None:
        with client.mounted(server) as mount:
            find(mount.drive, sizes)
            ends.append((time.perf_counter(), of_a_core(mount.pid)))

    ends: list[tuple[float, float]] = []
    begin = time.perf_counter()
    figures = server.timed(mount_and_find)
    [(end, of_core)] = ends
    return {**figures, "seconds": end - begin, "seconds of a core": of_core}


def find_again(server: Server, sizes: Sizes) -> Figures:
    """The same on a second machine, after a first one has walked the drive and unmounted it."""
    walk_once(server, sizes)
    return find_at_once(HAVERSACK, server, sizes)


def walk_once(server: Server, sizes: Sizes) -> None:
    with HAVERSACK.mounted(server) as mount:
        find(mount.drive, sizes)
        HAVERSACK.unmount(server, mount)


def find(drive: Path, sizes: Sizes) -> None:
    command = ["find", str(drive), "-name", "*.png", "-printf", "."]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    assert len(found) == sizes.files, f"{len(found)} files were found"


def list_all(client: Client, server: Server, sizes: Sizes) -> Figures:
    """Without a mount; rclone's best: many folders to a query."""
    command = ("drive", "ls", "-r") if isinstance(client, Haversack) else ("lsf", "-R", "--files-only", "hub:")
    printed: list[str] = []
    figures = server.timed(lambda: printed.append(client.run(server, *command)))
    assert printed[0].count(".png\n") == sizes.files
    return figures


def list_again(server: Server, sizes: Sizes) -> Figures:
    """The same on a second machine, after a first one has walked the drive and unmounted it."""
    walk_once(server, sizes)
    return list_all(HAVERSACK, server, sizes)


# What is warm


def warm(client: Client, server: Server, sizes: Sizes) -> Figures:
    """Calls per second on files that were read before; the last while a read waits for a hub that stands still."""
    with client.mounted(server) as mount:
        paths = sorted((mount.drive / "small").iterdir())[:WARM]
        for path in paths:
            read(path)
        figures = {"stat/s": per_second(os.stat, paths), "open+read/s": per_second(read, paths)}
        stalled = threading.Thread(target=partial(read, mount.drive / "large.bin", BLOCK))
        server.process.send_signal(signal.SIGSTOP)
        stalled.start()
        time.sleep(0.5)
        try:
            figures["open+read/s, another stalled"] = per_second(read, paths)
            assert stalled.is_alive()
        finally:
            server.process.send_signal(signal.SIGCONT)
        stalled.join()
    return figures


def per_second(call: Callable[[str], Any], paths: list[Path]) -> float:
    names, count = [str(path) for path in paths], 0
    begin = time.perf_counter()
    while (passed := time.perf_counter() - begin) < _RATE_FOR:
        for name in names:
            call(name)
        count += len(names)
    return count / passed


def read(path: str | Path, size: int = folders.SMALL_SIZE) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        assert len(os.read(file, size)) == size
    finally:
        os.close(file)


# Memory


def remember(client: Client, server: Server, sizes: Sizes) -> Figures:
    """What a mount takes once it has listed the crowded folder."""
    with client.mounted(server) as mount:

        def list_names() -> None:
            with os.scandir(mount.drive / "crowd") as entries:
                assert sum(1 for _ in entries) == sizes.files

        figures = server.timed(list_names)
        status = dict(line.split(":", 1) for line in Path(f"/proc/{mount.pid}/status").read_text().splitlines())
    memory = {"MB": int(status["VmRSS"].split()[0]) / 1000, "MB at most": int(status["VmHWM"].split()[0]) / 1000}
    return {**figures, **memory}


def mounts(measure: Callable[[Client, Server, Sizes], Figures], *clients: Client) -> dict[str, Measure]:
    """That work through each client's mount."""
    return {
        f"{client.name} mount" if client is not HAVERSACK else client.name: partial(measure, client)
        for client in clients
    }


LINES = {
    "open": Line(
        "one known file opened in a crowded folder, nothing cached",
        crowd,
        {**mounts(open_one, HAVERSACK, RCLONE, TUNED), "google-api-python-client": open_one_by_google},
        files=500_000,
    ),
    "ls": Line("mount and the first ls of a small root", ordinary, mounts(first_ls, HAVERSACK, RCLONE)),
    "read": Line(
        "1,000 small files read in random order by 16 readers",
        crowd,
        mounts(read_small, HAVERSACK, RCLONE, TUNED),
        files=100_000,
    ),
    "write": Line(
        "1,000 small new files until they are on the drive",
        ordinary,
        {"haversack": write_small, "rclone copy, tuned": partial(copy_small, TUNED)},
    ),
    "warm": Line("what is known and cached", ordinary, mounts(warm, HAVERSACK, RCLONE)),
    "get": Line("a large file read", ordinary, {**mounts(read_large, HAVERSACK, RCLONE), "bare GET": get_large}),
    "put": Line("a large file written", ordinary, {**mounts(write_large, HAVERSACK, RCLONE), "bare PUT": put_large}),
    "again": Line(
        "mount and find on a second machine",
        walk,
        {
            "haversack": find_again,
            "haversack drive ls": list_again,
            **mounts(find_at_once, RCLONE, TUNED),
            "rclone lsf, tuned": partial(list_all, TUNED),
        },
        files=100_000,
    ),
    "walk": Line(
        "mount and find, nothing cached",
        walk,
        {
            **mounts(find_at_once, HAVERSACK),
            "haversack drive ls": partial(list_all, HAVERSACK),
            "rclone lsf, tuned": partial(list_all, TUNED),
        },
        files=39_000,
    ),
    "memory": Line("a crowded folder listed", crowd, mounts(remember, HAVERSACK, RCLONE), files=500_000),
}


def median(rounds: list[Figures]) -> Figures:
    """The figures of the round that took the middle of all their seconds, or had the middle of all their rates."""
    key = next(iter(rounds[0]))
    return sorted(rounds, key=lambda figures: figures[key])[statistics.median_low(range(len(rounds)))]


def measure(
    line: Line, sizes: Sizes, names: list[str], rounds: int, keep: Callable[[dict[str, Figures]], None]
) -> None:
    """The clients in turn, `rounds` times; what is known is kept after each."""
    measured: dict[str, list[Figures]] = {}
    with line.on(sizes) as server:
        for _ in range(rounds):
            for name in names:
                measured.setdefault(name, []).append(line.by[name](server, sizes))
                print(f"  {name}: {shown(measured[name][-1])}", file=sys.stderr, flush=True)
                keep({client: {**median(every), "rounds": len(every)} for client, every in measured.items()})


def shown(figures: Figures) -> str:
    return ", ".join(f"{value:,.2f} {key}" for key, value in figures.items() if isinstance(value, int | float))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=LINES, help="; ".join(f"{name}: {line.says}" for name, line in LINES.items()))
    parser.add_argument("--scratch", type=Path, required=True, help="a folder where the drives are made and kept")
    parser.add_argument("--clients", nargs="+", help="only these")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--files", type=int, help="how many are on the drive that is crowded or walked")
    parser.add_argument("--folders", type=int, default=10_600, help="how many are on the drive that is walked")
    parser.add_argument("--megabytes", type=int, default=1000, help="of the large file")
    parser.add_argument("--latency", default="50ms")
    given = parser.parse_args()
    line = LINES[given.what]
    names = given.clients or [*line.by]
    if unknown := set(names) - set(line.by):
        parser.error(f"{', '.join(unknown)} does not do that; {', '.join(line.by)} do")
    given.scratch.mkdir(parents=True, exist_ok=True)
    files = given.files or line.files
    sizes = Sizes(given.scratch.absolute(), given.latency, files, given.folders, given.megabytes)
    print(line.says, file=sys.stderr)
    name = f"{files:,} files" if files else f"ordinary, {given.megabytes} MB"
    before = RECORD.get(given.what, name).get("clients", {})
    measure(
        line,
        sizes,
        names,
        given.rounds,
        lambda measured: RECORD.put(given.what, name, {"latency": given.latency, "clients": {**before, **measured}}),
    )


if __name__ == "__main__":
    main()
