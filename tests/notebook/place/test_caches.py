"""Caches that outlive sessions: what a library has downloaded once, the next session and the next job have."""

from __future__ import annotations

import fcntl
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from haversack.notebook.place.caches import SharedCaches
from tests.notebook import notebooks
from tests.notebook.conftest import Run

MODEL = os.urandom(1 << 20) * 8
# Libraries that are not installed here, by where and how they write. One that renames what is complete, like
# huggingface_hub and torch.hub; Keras, which writes to the final name; and a tool that follows XDG.
RENAMING = """
import os, pathlib, shutil, urllib.request
def fetch(url, path):
    path = pathlib.Path(path).expanduser()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url) as answer, open(f"{path}.incomplete", "wb") as file:
            shutil.copyfileobj(answer, file)
        os.replace(f"{path}.incomplete", path)
    return path.stat().st_size
"""
PLACES = (
    "~/.cache/huggingface/hub/models--me--small/blobs/1",
    "~/.cache/torch/hub/checkpoints/small.pth",
    "~/nltk_data/corpora/words.zip",
    "~/tensorflow_datasets/digits/1.0.0/digits.tfrecord",
    "~/.cache/whisper/tiny.pt",
    "~/scikit_learn_data/cal_housing_py3.pkz",
)


@dataclass
class Server:
    url: str
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    """It serves MODEL under every name.

    Whoever first asks for a name with "slow" is killed in the middle of the answer: the process named in its header.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            running.requests.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(MODEL)))
            self.end_headers()
            half = len(MODEL) // 2
            self.wfile.write(MODEL[:half])
            if "slow" in self.path and self.requests_of_path() == 1:
                self.wfile.flush()
                os.kill(int(self.headers["Kernel"]), signal.SIGKILL)
                return
            self.wfile.write(MODEL[half:])

        def requests_of_path(self) -> int:
            return running.requests.count(self.path)

        def log_message(self, *arguments: object) -> None:
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.daemon_threads = True
    running = Server(f"http://127.0.0.1:{served.server_port}")
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield running
    served.shutdown()
    served.server_close()


def test_two_jobs_fetch_a_model_once(run: Run, server: Server) -> None:
    fetches = "".join(f"print(fetch('{server.url}/{number}', '{place}'))\n" for number, place in enumerate(PLACES))
    # Keras imports scikit-learn where it is installed, which takes as long as Keras itself.
    keras = (
        "import sys\nsys.modules['sklearn'] = None\nimport keras\n"
        f"print(keras.utils.get_file('m.npz', '{server.url}/keras', cache_subdir='datasets'))"
    )
    for _ in range(2):
        report = run(RENAMING + fetches, keras)
        assert report.status == "done", report.error
        assert notebooks.text(report.output, 0).split() == [str(len(MODEL))] * len(PLACES)
    assert sorted(server.requests) == [*(f"/{number}" for number in range(len(PLACES))), "/keras"]


def test_the_sessions_of_a_job_share_and_half_a_file_is_fetched_again(run: Run, server: Server) -> None:
    """The second cell is killed in the middle of a download to the file's final name."""
    # A file that is as young as the next cell may be half of one, and is not shared.
    whole = RENAMING + f"print(fetch('{server.url}/whole', '~/.keras/models/whole.h5'))\nimport time; time.sleep(0.2)"
    slow = f"""
import os, pathlib, urllib.request
path = pathlib.Path('~/.keras/models/slow.h5').expanduser()
opener = urllib.request.build_opener()
opener.addheaders = [("Kernel", os.getpid())]
urllib.request.install_opener(opener)
if not path.exists():
    urllib.request.urlretrieve('{server.url}/slow', path)
print(path.stat().st_size)
"""
    report = run(whole, slow)
    assert report.status == "done", report.error
    assert report.sessions == 2
    assert notebooks.text(report.output, 1).split() == [str(len(MODEL))]
    assert server.requests == ["/whole", "/slow", "/slow"]


def test_settings_and_tokens_beside_the_caches_are_the_jobs_own(run: Run, own_folders: Path) -> None:
    """Also a token in a tool's folder, whatever it is named, and cookies."""
    token = "hf_" + "a1B2" * 9
    write = f"""
import pathlib
for name in ('.cache/huggingface/token', '.cache/huggingface/stored_tokens', '.cache/tool/cookies.txt',
             '.cache/tool/state', '.cache/huggingface/accelerate/default_config.yaml', '.keras/keras.json'):
    path = pathlib.Path.home() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{token}')
(pathlib.Path.home() / '.cache/tool/model').write_text('weights')
"""
    assert run(write).status == "done"
    report = run("!cd ~ && find -L .cache .keras -type f")
    assert notebooks.text(report.output, 0).split() == [".cache/tool/model"]
    shared = own_folders / "cache" / "libraries"
    assert [p.name for p in shared.rglob("*") if p.is_file()] == ["model"]


def test_a_variable_of_the_notebook_takes_precedence(run: Run) -> None:
    report = run(
        "import os\nprint([name for name in os.environ if name.startswith(('HF_', 'TORCH_', 'KERAS_HOME', 'XDG_'))])"
    )
    assert notebooks.text(report.output, 0).strip() == "[]"


def test_private_caches_are_the_sessions_own(run: Run, own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = "!mkdir -p ~/.cache/tool && touch ~/.cache/tool/model && ls -A ~/.cache"
    assert run(write, private_caches=True).status == "done"
    assert not (own_folders / "cache" / "libraries").exists()
    monkeypatch.setenv("HAVERSACK_CACHES", "private")
    report = run(write)
    assert notebooks.text(report.output, 0).split() == ["tool"]
    assert not (own_folders / "cache" / "libraries").exists()


# Without a job


def fill(folder: Path, name: str, used: float, size: int = 100_000) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    os.utime(path, (used, used))
    return path


def test_eviction_deletes_whole_models_the_least_recently_used_first(tmp_path: Path) -> None:
    hub = ".cache/huggingface/hub"
    old = [fill(tmp_path, f"{hub}/models--a/blobs/{blob}", used=1000) for blob in "12"]
    # One file of this model was read lately, so the model was.
    new = [fill(tmp_path, f"{hub}/models--b/blobs/{blob}", used=500 if blob == "1" else 3000) for blob in "12"]
    tool = [fill(tmp_path, f".cache/tool/{name}", used=2000) for name in "ab"]
    weights = fill(tmp_path, ".keras/models/w.h5", used=2500)
    assert SharedCaches.open(tmp_path, 500_000).close() == ""
    assert not any(path.exists() for path in [*old, *tool])
    assert not (tmp_path / hub / "models--a").exists()
    assert all(path.exists() for path in [*new, weights])


def test_nothing_is_deleted_while_another_job_runs_and_it_is_said(tmp_path: Path) -> None:
    model = fill(tmp_path, ".keras/models/w.h5", used=1000)
    other = SharedCaches.open(tmp_path, 1000)
    notice = SharedCaches.open(tmp_path, 1000).close()
    assert "no other job runs" in notice
    assert model.exists()
    assert other.close() == ""
    assert not model.exists()


def test_a_kernel_whose_parent_was_killed_still_counts_as_running(tmp_path: Path) -> None:
    model = fill(tmp_path, ".keras/models/w.h5", used=1000)
    caches = SharedCaches.open(tmp_path, 1000)
    kernel = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[caches.lock])
    os.close(caches.lock)  # as the system does when the parent is killed
    assert "no other job runs" in SharedCaches.open(tmp_path, 1000).close()
    assert model.exists()
    kernel.communicate()
    SharedCaches.open(tmp_path, 1000).close()
    assert not model.exists()


def test_the_kernel_of_a_job_holds_the_lock(run: Run, own_folders: Path) -> None:
    shared = own_folders / "cache" / "libraries"
    look = "import os\nnumbers = os.listdir('/proc/self/fd')\n"
    report = run(f"{look}print([os.path.realpath(f'/proc/self/fd/{{n}}') for n in numbers].count('{shared}'))")
    assert notebooks.text(report.output, 0).split() == ["1"]
    lock = os.open(shared, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(lock)


def test_what_a_killed_cell_wrote_through_a_link_is_deleted(tmp_path: Path) -> None:
    shared, home = tmp_path / "shared", tmp_path / "home"
    fill(shared, ".keras/models/w.h5", used=1000)
    fill(shared, ".keras/models/other.h5", used=1000)
    caches = SharedCaches.open(shared)
    home.mkdir()
    caches.link(home)
    time.sleep(0.1)
    began = time.time()
    (home / ".keras/models/w.h5").write_bytes(b"half")
    caches.adopt(home, began, str)
    assert [path.name for path in (shared / ".keras/models").iterdir()] == ["other.h5"]


def test_unpacked_archives_are_not_shared(tmp_path: Path) -> None:
    """Notebooks delete parts of them, such as the folder `unsup` of the IMDB reviews."""
    caches = SharedCaches.open(tmp_path / "shared")
    home = tmp_path / "home"
    home.mkdir()
    caches.link(home)
    fill(home, ".keras/datasets/imdb.tgz", used=1000)
    fill(home, ".keras/datasets/imdb/train/1.txt", used=1000)
    caches.adopt(home, float("inf"), str)
    assert [path.name for path in (tmp_path / "shared/.keras/datasets").iterdir()] == ["imdb.tgz"]
