"""A data set from a hub over a network of 100 MB/s and 20 ms: until every file can be read, and until the first batch.

Every tool is a process of its own that begins with nothing. Its seconds count from its start to its end; what follows
the download are those after the hub had sent the last byte, which the hub's log tells. `bare` is one GET of the
archive's signed address into a file: nobody can be faster over one connection. Disk is what the file system lost at
most meanwhile, in archives' sizes, so nothing else should write to it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NAME = "bench/pictures"
NETWORK = ("--latency", "20ms", "--bandwidth", "100MB")
# Seconds between two looks at the file system.
LOOKS = 0.05

BARE = """if True:
    import json, sys, urllib.request
    class Stay(urllib.request.HTTPRedirectHandler):
        def http_error_302(self, request, fp, code, message, headers):
            return fp
    owner, name = sys.argv[1].split("/")
    body = json.dumps({"ownerSlug": owner, "datasetSlug": name}).encode()
    headers = {"Authorization": "Bearer " + sys.argv[3], "Content-Type": "application/json"}
    url = sys.argv[2] + "/api/v1/datasets.DatasetApiService/DownloadDataset"
    answer = urllib.request.build_opener(Stay).open(urllib.request.Request(url, body, headers))
    location = urllib.parse.urljoin(url, answer.headers["Location"])
    with urllib.request.urlopen(location) as source, open(sys.argv[4] + "/archive.zip", "wb") as target:
        while piece := source.read(1 << 20):
            target.write(piece)
"""
HAVERSACK = """if True:
    import sys, haversack
    data = haversack.dataset("kaggle:" + sys.argv[1], hub=sys.argv[2])
    data.fetch()
    for name in (data.files[0], data.files[-1]):
        assert data.read(name)
"""
EPOCH = """if True:
    import sys, haversack
    data = haversack.dataset("kaggle:" + sys.argv[1], hub=sys.argv[2])
    images = data.images(size=(224, 224), channels=1, batch_size=64, dtype="uint8", cache=None)
    assert sum(len(x) for x, _ in images) == len(data.files)
    images.close()
"""
KAGGLE = "kaggle datasets download -d {name} -p {folder} --unzip -q"
KAGGLEHUB = "import kagglehub; kagglehub.dataset_download('{name}')"
FIRST = """if True:
    import json, os, sys, time
    started = time.perf_counter()
    import haversack
    images = haversack.dataset("kaggle:" + sys.argv[1], hub=sys.argv[2]).images(
        size=(224, 224), channels=1, batch_size=64
    )
    x, y = images[0]
    assert x.shape == (64, 224, 224, 1)
    print(json.dumps(time.perf_counter() - started), flush=True)
    os._exit(0)  # what goes on in the background is not waited for
"""


@dataclass(frozen=True)
class Hub:
    """A hub that is up: its address, its token, and the log of its calls."""

    url: str
    token: str
    log: Path

    def last_byte(self, since: int) -> float:
        """When the last byte of an archive was sent, in seconds since 1970, after the log had `since` bytes."""
        with open(self.log) as log:
            log.seek(since)
            calls = [json.loads(line) for line in log]
        return max(call["at"] + call["ms"] / 1e3 for call in calls if call["route"] == "storage" and call["sent"])


Tool = tuple[list[str], dict[str, str]]
"""A command and what it needs in its environment; `{folder}` in either is a folder of its own."""


def measure(archive: Path, rounds: int, scratch: Path) -> dict[str, dict[str, float]]:
    """Of each tool the seconds, those after the last byte, the disk it took, and its ratio to the bare download."""
    found: dict[str, list[dict[str, float]]] = {}
    with serving(archive, scratch) as hub:
        for _ in range(rounds):
            for name, tool in tools(hub).items():
                found.setdefault(name, []).append(timed(hub, tool, archive.stat().st_size, scratch))
    for each in found.values():
        for one, bare in zip(each, found["bare download"], strict=True):
            one["/ bare"] = one["seconds"] / bare["seconds"]
    return {name: medians(each) for name, each in found.items()}


def epoch(archive: Path, rounds: int, scratch: Path) -> dict[str, float]:
    """An epoch of images from an archive never seen, without a cache of pixels: seconds, and the disk it took."""
    with serving(archive, scratch) as hub:
        size = archive.stat().st_size
        return medians([timed(hub, ours(hub, EPOCH), size, scratch) for _ in range(rounds)])


def first_batch(archive: Path, rounds: int, scratch: Path) -> dict[str, float]:
    """Seconds from the first import to the first batch of 64, of an archive never seen."""
    seconds = []
    with serving(archive, scratch) as hub:
        for _ in range(rounds):
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                seconds.append(json.loads(run(ours(hub, FIRST), Path(folder))))
    return {"seconds": statistics.median(seconds), "slowest": max(seconds)}


def tools(hub: Hub) -> dict[str, Tool]:
    clients = {"KAGGLE_API_TOKEN": hub.token, **through(hub.url)}
    command = str(Path(sys.executable).with_name("kaggle"))
    return {
        "bare download": ([sys.executable, "-c", BARE, NAME, hub.url, hub.token, "{folder}"], {}),
        "haversack": ours(hub, HAVERSACK),
        "kaggle --unzip": ([command, *KAGGLE.format(name=NAME, folder="{folder}").split()[1:]], clients),
        "kagglehub": (
            [sys.executable, "-c", KAGGLEHUB.format(name=NAME)],
            {"KAGGLEHUB_CACHE": "{folder}", **clients},
        ),
    }


def ours(hub: Hub, code: str) -> Tool:
    environment = {"HAVERSACK_TOKEN": hub.token, "HAVERSACK_CACHE": "{folder}"}
    return [sys.executable, "-c", code, NAME, hub.url], environment


def through(url: str) -> dict[str, str]:
    """What leads Kaggle's own clients to a server on this machine."""
    return {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": url, "no_proxy": ""}


def timed(hub: Hub, tool: Tool, size: int, scratch: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=scratch) as folder, most(scratch) as held:
        since, started = hub.log.stat().st_size, time.time()
        run(tool, Path(folder))
        ended = time.time()
    return {"seconds": ended - started, "after": ended - hub.last_byte(since), "disk": held[0] / size}


def run(tool: Tool, folder: Path) -> str:
    """What the tool prints; it has a home of its own, and `folder`."""
    command = [word.replace("{folder}", str(folder)) for word in tool[0]]
    own = {key: value.replace("{folder}", str(folder)) for key, value in tool[1].items()}
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(command, env=os.environ | {"HOME": home} | own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def medians(each: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in each) for key in each[0]}


@contextmanager
def most(folder: Path) -> Iterator[list[int]]:
    """The most bytes that went from the file system of `folder` meanwhile."""
    held, over, before = [0], threading.Event(), shutil.disk_usage(folder).used

    def look() -> None:
        while not over.wait(LOOKS):
            held[0] = max(held[0], shutil.disk_usage(folder).used - before)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield held
    finally:
        over.set()
        looking.join()


@contextmanager
def serving(archive: Path, scratch: Path) -> Iterator[Hub]:
    """A hub over that network, which has `archive` as a data set."""
    home = Path(tempfile.mkdtemp(dir=scratch))
    try:
        with started(home) as hub:
            put = [sys.executable, "-m", "haversack", "data", "put", str(archive), f"kaggle:{NAME}", "--hub", hub.url]
            subprocess.run(put, env=os.environ | {"HAVERSACK_TOKEN": hub.token}, check=True, capture_output=True)
        with started(home, *NETWORK) as hub:
            touch(hub)
            yield hub
    finally:
        shutil.rmtree(home)


def touch(hub: Hub) -> None:
    """Look into the data set once: before it sends an archive for the first time, a hub reads all of it for its md5."""
    code = f"import haversack; haversack.dataset('kaggle:{NAME}', hub='{hub.url}')"
    with tempfile.TemporaryDirectory() as folder:
        run(([sys.executable, "-c", code], {"HAVERSACK_TOKEN": hub.token, "HAVERSACK_CACHE": "{folder}"}), Path(folder))


@contextmanager
def started(home: Path, *options: str) -> Iterator[Hub]:
    state, log, token = home / "state.json", home / "log", secrets.token_urlsafe(24)
    state.unlink(missing_ok=True)
    command = [sys.executable, "-m", "haversack", "hub", "--root", str(home / "hub"), "--port", "0"]
    files = ["--state", str(state), "--log", str(log)]
    process = subprocess.Popen([*command, *files, *options], env=os.environ | {"HAVERSACK_TOKEN": token})
    try:
        while not state.exists():
            assert process.poll() is None, "the hub ended before it was up"
            time.sleep(0.02)
        yield Hub(json.loads(state.read_text())["url"], token, log)
    finally:
        process.terminate()
        process.wait()
