"""The notebooks of `examples/wild`: what each needs, what a job of it is given, and what its cells must show."""

from __future__ import annotations

import functools
import http.server
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from haversack.notebook.job import job
from tests.notebook import notebooks

WILD = Path(__file__).parents[2] / "examples" / "wild"

Options = dict[str, Any]


def _nothing(folder: Path, url: str) -> Options:
    return {}


@dataclass(frozen=True)
class Case:
    """A notebook of `examples/wild`.

    Attributes:
        name: the notebook's name.
        needs: "dev" if haversack's own development environment has its packages, "packages" if some have to be
            installed from an index, "frameworks" if TensorFlow or PyTorch is among them.
        shows: what its outputs must contain, in this order.
        downloads: the names of the files that it downloads.
        given: (a folder for files, the address of a server over that folder) → the options of `job.run`.
    """

    name: str
    needs: Literal["dev", "packages", "frameworks"]
    shows: tuple[str, ...]
    downloads: tuple[str, ...] = ()
    given: Callable[[Path, str], Options] = field(default=_nothing, repr=False)

    def check(self, folder: Path, **options: Any) -> job.JobReport:
        """Run it as a job in `folder`, with `options` besides its own, and hold its outputs against `shows`."""
        files = folder / "files"
        files.mkdir()
        with _server(files) as url:
            output = folder / f"{self.name}.executed.ipynb"
            report = job.run(WILD / f"{self.name}.ipynb", output, **self.given(files, url), **options)
        assert report.status == "done", f"{report.error}\n{shown(output)}"
        text, start = shown(output), 0
        for expected in self.shows:
            assert expected in text[start:], f"{expected!r} is not in\n{text[start:][:3000]}"
            start = text.index(expected, start) + len(expected)
        assert sorted(Path(path).name for path in report.downloads) == sorted(self.downloads)
        return report


def shown(output: Path) -> str:
    """All that an executed notebook shows, as text. A `!` line writes to a terminal, which ends lines with CR LF."""
    cells = notebooks.read(output).cells
    text = "\n".join(notebooks.text(output, index) for index, cell in enumerate(cells) if cell.cell_type == "code")
    return text.replace("\r\n", "\n")


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def _photos(folder: Path, url: str) -> Options:
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        for number in range(3):
            path = folder / f"{number}.png"
            Image.new("RGB", (40, 30), (number * 80, 0, 99)).save(path)
            archive.write(path, f"trip/{number}.png")
    return {"uploads": [folder / "photos.zip"]}


def _housing(folder: Path, url: str) -> Options:
    rows = [f"{rooms},{rooms * 20},{rooms * 1000}" for rooms in range(1, 11)]
    (folder / "housing.csv").write_text("\n".join(["rooms,area,price", *rows]) + "\n")
    (folder / "labels.txt").write_text("cat\ndog\n")
    with tarfile.open(folder / "labels.tar.gz", "w:gz") as archive:
        archive.add(folder / "labels.txt", "labels.txt")
    return {"parameters": {"BASE_URL": url}}


def _repository(folder: Path, url: str) -> Options:
    """A repository over HTTP, as git's plain protocol serves it."""
    work, bare = folder / "work", folder / "shapes.git"
    for name, text in {
        "shapes_core.py": "NAME = 'shapes'\n",
        "lib/helpers.py": "def area(a, b):\n    return a * b\n",
        "config.yaml": "steps: 1\n",
        "main.py": "import sys, shapes_core\nprint('main', shapes_core.NAME, sys.argv[-1])\n",
    }.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    _git("init", "-q", str(work))
    _git("-C", str(work), "add", ".")
    _git("-C", str(work), *who, "commit", "-q", "-m", "first")
    _git("clone", "-q", "--bare", str(work), str(bare))
    return {"parameters": {"REPO": f"file://{bare}"}}


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True)


CASES = {
    case.name: case
    for case in (
        Case("drive_and_pandas", "packages", ("True /content/drive", "sales.csv", "(3, 4) True")),
        Case("tf_quickstart", "frameworks", ("TensorFlow version: 2.", "True", "good 3", "(5, 10)")),
        Case("hf_tokenizer", "packages", ("['the', 'lazy', 'zebra", "tokenizer.json")),
        Case("torch_loop", "frameworks", ("Finished Training", "ok")),
        Case("sklearn_and_seaborn", "packages", ("precision", "score ok: True")),
        Case(
            "upload_zip",
            "dev",
            ('User uploaded file "photos.zip"', "\n3\n", "(30, 40, 3)"),
            downloads=("result.zip",),
            given=_photos,
        ),
        Case(
            "wget_data",
            "dev",
            ("housing.csv\nlabels.txt", "rooms,area,price", "10", "(10, 2) 5500.0", "R^2 1.0", "['cat', 'dog']"),
            given=_housing,
        ),
        Case(
            "writefile_module",
            "dev",
            ("[-1.225  0.     1.225] 1", "[0. 0. 1.]", "trained on 7 samples", "trained on 4 samples"),
        ),
        Case(
            "bash_and_cd",
            "dev",
            ("/content\n", "done in /content/work", "hello wild", "log.txt", "second: two words", "neddih si siht"),
        ),
        Case("widgets", "packages", ("f 3 b", "190\n7\n")),
        Case("plotly_and_altair", "packages", ("Figure",), downloads=("heatmap.html",)),
        Case("own_checkpoints", "dev", ("Starting from scratch", "epoch_012.pkl", "[0. 1. 2. 3. 4.] epochs 12")),
        Case("restarts_runtime", "dev", ("[1. 2. 3.]",), downloads=("eig.npy",)),
        Case(
            "git_clone",
            "dev",
            ("/content/shapes", "shapes 12", "main shapes 5", "from outside shapes"),
            given=_repository,
        ),
        Case("q_learning", "dev", ("Training finished", "steps 8")),
        Case("progress_bars", "dev", ("step 2000/2000", "19999", "59999", "batch 299", "row 3000", "all done")),
    )
}


def names(needs: str) -> list[str]:
    """The names of the notebooks with these needs."""
    return [case.name for case in CASES.values() if case.needs == needs]
