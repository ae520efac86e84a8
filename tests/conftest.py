"""What every test starts from: folders of its own, nobody signed in, and a real hub where one is asked for."""

from __future__ import annotations

import math
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import end_compilers

# What takes longest is begun first, so that no process is left alone with it at the end.
_FIRST = ("tests/examples/", "tests/training/")


def pytest_configure(config: pytest.Config) -> None:
    """Let all processes of the run share what JAX compiled and the fonts that matplotlib found.

    Hundreds of processes train the same few models. The workers inherit the environment.
    """
    if not hasattr(config, "workerinput"):
        folder = tempfile.mkdtemp(prefix="haversack-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        os.environ["MPLCONFIGDIR"] = f"{folder}/matplotlib"
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/jax"
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def pytest_sessionstart() -> None:
    """What is started in the background of a script ignores Ctrl-C, and so do its children; the tests send it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(_FIRST))


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A HOME, data and cache folder of the test's own; no sign-in of the machine's user is seen."""
    home = tmp_path_factory.mktemp("home")
    foreign = ("HAVERSACK_", "KAGGLE_", "XDG_", "RCLONE_", "GOOGLE_", "CLOUDSDK_")
    for name in [name for name in os.environ if name.startswith(foreign)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HAVERSACK_DATA", str(home / "data"))
    monkeypatch.setenv("HAVERSACK_CACHE", str(home / "cache"))
    # Jobs run with the packages of the suite's environment. Tests of the notebook's own packages unset it.
    monkeypatch.setenv("HAVERSACK_INSTALL", "no")
    yield home
    end_compilers(home / "cache")
    let_go()
    forget_drives(home)


def let_go() -> None:
    """End what this process would do for the drives of a finished test, and release its embedded hub.

    A drive's changes feed is polled for another minute, and an embedded hub lives as long as the process that leased
    it: those of hundreds of tests would keep the machine busy. Both begin again when they are used again.
    """
    for thread in threading.enumerate():
        run = getattr(thread, "_target", None)  # None: the thread has just ended
        if thread.name == "haversack-changes" and run is not None:
            run.__self__._last_used = -math.inf  # an idle drive's thread ends
    if "haversack.embedded" in sys.modules:
        sys.modules["haversack.embedded"].detach()


def forget_drives(home: Path) -> None:
    """Drop the drives of a finished test, which hold the files of their indexes open: a process has 1,600 tests."""
    if "haversack.drive.tree" in sys.modules:
        drives = sys.modules["haversack.drive.tree"]._drives
        for key in [key for key in drives if key[2].data.is_relative_to(home)]:
            del drives[key]


def seeds(count: int, more: int) -> list[object]:
    """Values for a parameter by which a test repeats itself at random: `count` in every run, `more` in long ones."""
    return [*range(count), *(pytest.param(count + number, marks=pytest.mark.long) for number in range(more))]


@dataclass(frozen=True)
class RunningHub:
    url: str
    token: str
    root: Path
    process: subprocess.Popen[bytes]

    @property
    def my_drive(self) -> Path:
        return self.root / "My Drive"

    @property
    def state(self) -> dict[str, str]:
        """What it tells of itself; with `--tls` also `tls_url`, `proxy` and `ca`."""
        import json

        return json.loads((self.root.parent / f"{self.root.name}.json").read_text())


def start_hub(root: Path, token: str | None = None, *options: str) -> RunningHub:
    """A hub in a process of its own, answering; `options` as its command takes them."""
    token = token or secrets.token_urlsafe(24)
    state = root.parent / f"{root.name}.json"
    state.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "haversack",
        "hub",
        "--root",
        str(root),
        "--port",
        "0",
        "--state",
        str(state),
        *options,
    ]
    process = subprocess.Popen(command, env={**os.environ, "HAVERSACK_TOKEN": token})
    end = time.monotonic() + 120
    while not state.exists():
        assert process.poll() is None, "the hub ended before it was up"
        assert time.monotonic() < end, "the hub did not come up"
        time.sleep(0.02)
    import json

    return RunningHub(json.loads(state.read_text())["url"], token, root, process)


@pytest.fixture(scope="session")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    running = start_hub(tmp_path_factory.mktemp("hub") / "root")
    yield running
    running.process.terminate()
    running.process.wait(60)


@pytest.fixture
def hub(shared_hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> RunningHub:
    """The suite's hub, named in this test's environment. Use names of your own: other tests write to it too."""
    monkeypatch.setenv("HAVERSACK_HUB", shared_hub.url)
    monkeypatch.setenv("HAVERSACK_TOKEN", shared_hub.token)
    # The snapshot of an earlier test: every new drive would load its names.
    (shared_hub.my_drive / ".haversack-index.jsonl.gz").unlink(missing_ok=True)
    return shared_hub


@pytest.fixture
def own_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningHub]:
    """A hub for this test alone, empty, named in its environment."""
    running = start_hub(tmp_path / "own-hub")
    monkeypatch.setenv("HAVERSACK_HUB", running.url)
    monkeypatch.setenv("HAVERSACK_TOKEN", running.token)
    yield running
    running.process.terminate()
    running.process.wait(60)
