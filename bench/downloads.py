"""A data set from a hub over a network of 100 MB/s and 20 ms: until every file can be read, and until the first batch.

`bare` is one GET of the archive's signed address into a file: nobody can be faster over one connection. Every tool is
a process of its own that begins with nothing, and its seconds count from its start; haversack and the bare one also
say how long the download itself took. `disk` is the most that the tool's folder held, in archives' sizes.
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
from pathlib import Path

NAME = "bench/pictures"
NETWORK = ("--latency", "20ms", "--bandwidth", "100MB")

BARE = """if True:
    import json, sys, time, urllib.request
    class Stay(urllib.request.HTTPRedirectHandler):
        def http_error_302(self, request, fp, code, message, headers):
            return fp
    owner, name = sys.argv[1].split("/")
    body = json.dumps({"ownerSlug": owner, "datasetSlug": name}).encode()
    headers = {"Authorization": "Bearer " + sys.argv[3], "Content-Type": "application/json"}
    url = sys.argv[2] + "/api/v1/datasets.DatasetApiService/DownloadDataset"
    started = time.perf_counter()
    answer = urllib.request.build_opener(Stay).open(urllib.request.Request(url, body, headers))
    location = urllib.parse.urljoin(url, answer.headers["Location"])
    with urllib.request.urlopen(location) as source, open(sys.argv[4] + "/archive.zip", "wb") as target:
        while piece := source.read(1 << 20):
            target.write(piece)
    print(json.dumps({"download": time.perf_counter() - started, "after": 0.0}))
"""
HAVERSACK = """if True:
    import json, sys, time
    import haversack
    started = time.perf_counter()
    data = haversack.dataset("kaggle:" + sys.argv[1], hub=sys.argv[2])
    data.fetch()
    fetched = time.perf_counter()
    for name in (data.files[0], data.files[-1]):
        assert data.read(name)
    print(json.dumps({"download": fetched - started, "after": time.perf_counter() - fetched}))
"""
KAGGLE = "kaggle datasets download -d {name} -p {folder} --unzip -q"
KAGGLE_ZIPPED = "kaggle datasets download -d {name} -p {folder} -q"
KAGGLEHUB = "import kagglehub; kagglehub.dataset_download('{name}')"
FIRST = """if True:
    import json, sys, time
    started = time.perf_counter()
    import haversack
    images = haversack.dataset("kaggle:" + sys.argv[1], hub=sys.argv[2]).images(
        size=(224, 224), channels=1, batch_size=64, dtype="uint8", cache=None
    )
    x, y = images[0]
    assert x.shape == (64, 224, 224, 1)
    print(json.dumps(time.perf_counter() - started))
    sys.stdout.flush()
    import os
    os._exit(0)  # what goes on in the background is not waited for
"""


def measure(archive: Path, rounds: int, scratch: Path) -> dict[str, dict[str, float]]:
    """Seconds, the ratio to the bare download, and disk, of each tool."""
    found: dict[str, list[dict[str, float]]] = {}
    with serving(archive, scratch) as (url, token):
        for _ in range(rounds):
            for name, tool in tools(url, token).items():
                found.setdefault(name, []).append(timed(tool, archive.stat().st_size, scratch))
    for each in found.values():
        for one, bare in zip(each, found["bare download"], strict=True):
            one["/ bare"] = one["seconds"] / bare["seconds"]
            one.setdefault("after", one["seconds"] - bare["seconds"])
    return {name: {key: statistics.median(one[key] for one in each) for key in each[0]} for name, each in found.items()}


def tools(url: str, token: str) -> dict[str, tuple[list[str], dict[str, str]]]:
    """The commands, with what they need in their environment; `{folder}` is a folder of theirs."""
    python, clients = [sys.executable, "-c"], {"KAGGLE_API_TOKEN": token, **through(url)}
    kaggle = str(Path(sys.executable).with_name("kaggle"))
    return {
        "bare download": ([*python, BARE, NAME, url, token, "{folder}"], {}),
        "haversack": ([*python, HAVERSACK, NAME, url], {"HAVERSACK_TOKEN": token, "HAVERSACK_CACHE": "{folder}"}),
        "kaggle, zipped": ([kaggle, *KAGGLE_ZIPPED.format(name=NAME, folder="{folder}").split()[1:]], clients),
        "kaggle --unzip": ([kaggle, *KAGGLE.format(name=NAME, folder="{folder}").split()[1:]], clients),
        "kagglehub": ([*python, KAGGLEHUB.format(name=NAME)], {"KAGGLEHUB_CACHE": "{folder}", **clients}),
    }


def through(url: str) -> dict[str, str]:
    """What leads Kaggle's own clients to a server on this machine."""
    return {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": url, "no_proxy": ""}


def timed(tool: tuple[list[str], dict[str, str]], size: int, scratch: Path) -> dict[str, float]:
    command, environment = tool
    with tempfile.TemporaryDirectory(dir=scratch) as folder, tempfile.TemporaryDirectory() as home:
        command = [word.replace("{folder}", folder) for word in command]
        own = {key: value.replace("{folder}", folder) for key, value in environment.items()}
        with most(Path(folder)) as held:
            started = time.perf_counter()
            done = subprocess.run(command, env=os.environ | {"HOME": home} | own, capture_output=True, text=True)
            seconds = time.perf_counter() - started
        assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1]) if "download" in done.stdout[-200:] and "{" in done.stdout else {}
    return {"seconds": seconds, **said, "disk": held[0] / size}


@contextmanager
def most(folder: Path) -> Iterator[list[int]]:
    """The most bytes on the disk that were seen in a folder meanwhile."""
    held, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            held[0] = max(held[0], used(folder))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield held
    finally:
        over.set()
        looking.join()
        held[0] = max(held[0], used(folder))


def used(folder: Path) -> int:
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except FileNotFoundError:
                continue  # gone meanwhile
    return total


def first_batch(archive: Path, rounds: int, scratch: Path) -> dict[str, float]:
    """Seconds from the start of Python to the first batch of 64, of an archive never seen."""
    with serving(archive, scratch) as (url, token):
        seconds = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory(dir=scratch) as cache:
                environment = os.environ | {"HAVERSACK_TOKEN": token, "HAVERSACK_CACHE": cache}
                command = [sys.executable, "-c", FIRST, NAME, url]
                done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                seconds.append(json.loads(done.stdout))
    return {"seconds": statistics.median(seconds)}


@contextmanager
def serving(archive: Path, scratch: Path) -> Iterator[tuple[str, str]]:
    """A hub that has `archive` as a data set; its address and token."""
    root, token = Path(tempfile.mkdtemp(dir=scratch)) / "hub", secrets.token_urlsafe(24)
    with hub(root, token) as url:
        environment = os.environ | {"HAVERSACK_TOKEN": token}
        put = [sys.executable, "-m", "haversack", "data", "put", str(archive), f"kaggle:{NAME}", "--hub", url]
        subprocess.run(put, env=environment, check=True, capture_output=True)
    try:
        with hub(root, token, *NETWORK) as url:
            yield url, token
    finally:
        shutil.rmtree(root.parent)


@contextmanager
def hub(root: Path, token: str, *options: str) -> Iterator[str]:
    state = root.parent / "state.json"
    state.unlink(missing_ok=True)
    command = [sys.executable, "-m", "haversack", "hub", "--root", str(root), "--port", "0", "--state", str(state)]
    process = subprocess.Popen([*command, *options], env=os.environ | {"HAVERSACK_TOKEN": token})
    try:
        while not state.exists():
            assert process.poll() is None, "the hub ended before it was up"
            time.sleep(0.02)
        yield json.loads(state.read_text())["url"]
    finally:
        process.terminate()
        process.wait()
