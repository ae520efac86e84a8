"""The draw: which public notebooks are run, chosen by the hash order of their paths and by nobody.

There are two lots: notebooks for Colab and the like, and notebooks from Kaggle. Within a lot, every notebook of every
repository is sorted by the SHA-256 of "owner/name/path"; they are taken in that order, at most `most` of one
repository, until there are `count`. Passed over is only what is no notebook (an empty file, and one of 4 MiB and more,
which snapshots of repositories leave out) and, for Kaggle, what reads no input. The commit is the clone's `HEAD`. So
the same clones give the same table, and no one can put a notebook that works in the place of one that does not.

Few of these repositories have a license, so no notebook is ever committed here: the table names them, and they are
fetched into a folder that git ignores.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

LARGEST = 4 << 20
KAGGLE = "kaggle"
# A notebook of Kaggle reads something below /kaggle/input, which is also ../input.
_READS_INPUT = re.compile(r"(?:/kaggle|\.\.)/input/\w")


@dataclass(frozen=True)
class Lot:
    """Repositories out of which notebooks are drawn.

    Attributes:
        repositories: the repositories, each "owner/name".
        count: how many notebooks are taken.
        most: how many of one repository at most.
        kind: the kind of all of them; "" if it depends on what each imports.
    """

    repositories: tuple[str, ...]
    count: int
    most: int
    kind: str = ""


COLAB_LOT = Lot(
    repositories=(
        "huggingface/notebooks",
        "tensorflow/docs",
        "lmoroney/dlaicourse",
        "MITDeepLearning/introtodeeplearning",
        "jakevdp/PythonDataScienceHandbook",
        "roboflow/notebooks",
        "googlecolab/colabtools",
        "berkeleydeeprlcourse/homework_fall2022",
        # Three more, for kinds that the first eight lack: scikit-learn, loops in PyTorch, a pinned package installed
        # first.
        "ageron/handson-ml3",
        "mrdbourke/pytorch-deep-learning",
        "d2l-ai/d2l-en-colab",
    ),
    count=60,
    most=8,
)
# The repositories named "kaggle-notebooks", in whatever case, that a public index of GitHub listed in November 2026, of
# which there was a snapshot and that have a notebook that reads an input.
KAGGLE_LOT = Lot(
    repositories=(
        "Inam05/Kaggle-Notebooks",
        "JesperDramsch/kaggle-notebooks",
        "JipWulffele/kaggle-notebooks",
        "KarolBochenek/kaggle-notebooks",
        "MaoXiao321/kaggle-notebooks",
        "RMCrean/kaggle-notebooks",
        "SuBhaduri/Kaggle-Notebooks",
        "arec1b0/kaggle-notebooks",
        "ashhssn/kaggle-notebooks",
        "ayushman-c/kaggle-notebooks",
        "azminewasi/Kaggle-Notebooks",
        "carvalhomb/Kaggle-Notebooks",
        "chuo-v/kaggle-notebooks",
        "dmagog/kaggle-notebooks",
        "fummicc1/kaggle-notebooks",
        "jideilori/kaggle-notebooks",
        "khunamir/kaggle-notebooks",
        "kylegilde/Kaggle-Notebooks",
        "liopic/kaggle-notebooks",
        "lukhi-laksh/Kaggle-Notebooks",
        "mateuszk098/kaggle-notebooks",
        "munish7771/kaggle-notebooks",
        "nafisk/kaggle-notebooks",
        "nitishabharathi/Kaggle-Notebooks",
        "shivam-199/kaggle-notebooks",
        "shootmanng/Kaggle-Notebooks",
        "tejeshreddy/kaggle-notebooks",
        "tushar-dobal-cse-ai-ds/kaggle-notebooks",
        "vishnums8093/Kaggle-Notebooks",
    ),
    count=20,
    most=2,
    kind=KAGGLE,
)
LOTS = (COLAB_LOT, KAGGLE_LOT)
# A notebook's kind is the first of these of which it imports a module.
KINDS = {
    "Hugging Face": ("transformers", "datasets", "diffusers", "huggingface_hub"),
    "reinforcement learning": ("gym", "gymnasium"),
    "TensorFlow": ("tensorflow", "keras"),
    "PyTorch": ("torch", "ultralytics"),
    "MXNet": ("mxnet",),
    "scikit-learn": ("sklearn",),
    "tables and plots": ("pandas", "matplotlib", "seaborn", "numpy"),
}


@dataclass(frozen=True)
class Listed:
    """One row of `real.tsv`: a notebook's kind, its repository ("owner/name"), the commit and the path there."""

    kind: str
    repository: str
    commit: str
    path: str

    @property
    def place(self) -> str:
        return f"{self.repository}/{self.path}"

    @property
    def key(self) -> str:
        """A short name for files about this notebook."""
        return hash_of(self.place)[:12]


def hash_of(place: str) -> str:
    return hashlib.sha256(place.encode()).hexdigest()


def read(table: Path) -> list[Listed]:
    """The rows of a table, below its heading."""
    return [Listed(*line.split("\t")) for line in table.read_text().splitlines()[1:]]


def write(table: Path, rows: Iterable[Listed]) -> None:
    lines = ["kind\trepository\tcommit\tpath"]
    lines += ["\t".join((row.kind, row.repository, row.commit, row.path)) for row in rows]
    table.write_text("\n".join(lines) + "\n")


def draw(clones: Path, lots: Iterable[Lot] = LOTS) -> list[Listed]:
    """The notebooks of each lot whose turn comes first, out of the clones in a folder.

    Raises `SystemExit` if a repository's clone is not there.
    """
    return [row for lot in lots for row in _draw_lot(clones, lot)]


def _draw_lot(clones: Path, lot: Lot) -> list[Listed]:
    found = [one for repository in lot.repositories for one in notebooks(clone(clones, repository), repository)]
    taken: list[Listed] = []
    counts: Counter[str] = Counter()
    for repository, commit, path in sorted(found, key=lambda one: hash_of(f"{one[0]}/{one[2]}")):
        if counts[repository] == lot.most or len(taken) == lot.count:
            continue
        notebook = show(clone(clones, repository), commit, path)
        if lot.kind != KAGGLE or (not hidden(path) and reads_input(notebook)):
            counts[repository] += 1
            taken.append(Listed(lot.kind or kind(notebook), repository, commit, path))
    return taken


def hidden(path: str) -> bool:
    """Whether a file lies in a hidden folder, as Jupyter's copies in .ipynb_checkpoints do."""
    return any(part.startswith(".") for part in path.split("/"))


def reads_input(notebook: bytes) -> bool:
    """Whether a file is a notebook (of format 4) that names a file or folder below Kaggle's input folder."""
    try:
        read = json.loads(notebook)
    except ValueError:  # A pointer to a large file, for example.
        return False
    return "cells" in read and bool(_READS_INPUT.search("\n".join(code_of(read))))


def clone(clones: Path, repository: str) -> Path:
    """The clone of a repository: a git folder named `owner+name`, `owner+name/repo` or `owner/name`."""
    joined = repository.replace("/", "+")
    for path in (clones / joined / "repo", clones / joined, clones / repository):
        if path.is_dir():
            return path
    raise SystemExit(f"There is no clone of {repository} in {clones}. Clone it there as {joined}.")


def notebooks(git: Path, repository: str) -> Iterator[tuple[str, str, str]]:
    """(repository, commit, path) of each file that is a notebook by its name and size."""
    commit = _git(git, "rev-parse", "HEAD").decode().strip()
    for line in _git(git, "ls-tree", "-r", "-z", "-l", commit).decode().split("\0"):
        head, _, path = line.partition("\t")
        size = head.split()[-1] if head else ""
        if path.endswith(".ipynb") and size.isdigit() and 0 < int(size) < LARGEST:
            yield repository, commit, path


def paths(git: Path, commit: str) -> list[str]:
    """The paths of all files of a repository."""
    return _git(git, "ls-tree", "-r", "-z", "--name-only", commit).decode().split("\0")[:-1]


def show(git: Path, commit: str, path: str) -> bytes:
    """A file's bytes at a commit."""
    return _git(git, "show", f"{commit}:{path}")


def kind(notebook: bytes) -> str:
    """What a notebook is about, by the first of `KINDS` that it imports; else "plain", or "text" without any code."""
    code = "\n".join(code_of(json.loads(notebook)))
    imported = set(re.findall(r"^\s*(?:import|from) +(\w+)", code, re.MULTILINE))
    plain = "plain" if code.strip() else "text"
    return next((name for name, modules in KINDS.items() if imported & set(modules)), plain)


def code_of(notebook: dict[str, object]) -> list[str]:
    """The source of each code cell of a notebook of format 4."""
    cells = notebook["cells"]
    assert isinstance(cells, list)
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def _git(git: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(git), *arguments], check=True, stdout=subprocess.PIPE).stdout
