"""The draw: which public notebooks are run, chosen by the hash order of their paths and by nobody.

Every notebook of every repository is sorted by the SHA-256 of "owner/name/path"; they are taken in that order, at most
`MOST` of one repository, until there are `COUNT`. Passed over is only what is no notebook: an empty file, and one of
4 MiB and more, which snapshots of repositories leave out. The commit is the clone's `HEAD`. So the same clones give
the same table, and no one can put a notebook that works in the place of one that does not.
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

COUNT = 60
MOST = 8
LARGEST = 4 << 20
REPOSITORIES = (
    "huggingface/notebooks",
    "tensorflow/docs",
    "lmoroney/dlaicourse",
    "MITDeepLearning/introtodeeplearning",
    "jakevdp/PythonDataScienceHandbook",
    "roboflow/notebooks",
    "googlecolab/colabtools",
    "berkeleydeeprlcourse/homework_fall2022",
    # Three more, for kinds that the first eight lack: scikit-learn, loops in PyTorch, a pinned package installed first.
    "ageron/handson-ml3",
    "mrdbourke/pytorch-deep-learning",
    "d2l-ai/d2l-en-colab",
)
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


def draw(clones: Path) -> list[Listed]:
    """The notebooks of `REPOSITORIES` whose turn comes first, out of the clones in a folder.

    Raises `SystemExit` if a repository's clone is not there.
    """
    found = [one for repository in REPOSITORIES for one in notebooks(clone(clones, repository), repository)]
    taken: list[tuple[str, str, str]] = []
    counts: Counter[str] = Counter()
    for repository, commit, path in sorted(found, key=lambda one: hash_of(f"{one[0]}/{one[2]}")):
        if counts[repository] < MOST and len(taken) < COUNT:
            counts[repository] += 1
            taken.append((repository, commit, path))
    return [
        Listed(kind(show(clone(clones, repository), commit, path)), repository, commit, path)
        for repository, commit, path in taken
    ]


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
