"""What the door costs: a notebook's packages, its start and its output, beside other programs that execute notebooks.

    uv run python bench/notebook.py environment   # pandas, scikit-learn, seaborn, matplotlib: cache cold and warm
    uv run python bench/notebook.py again         # the same lock in another job, beside no packages at all
    uv run python bench/notebook.py archive       # those of a page on a second machine, from their archive on the drive
    uv run python bench/notebook.py pip           # `!pip install` of 18 packages
    uv run python bench/notebook.py empty         # an empty notebook, the whole process
    uv run python bench/notebook.py output        # one line of 1 MB, and a thousand lines of 1 kB
    uv run python bench/notebook.py torch         # which build of torch is downloaded where there is no GPU
    uv run python bench/notebook.py models        # 1 GB of model files, three sessions
    uv run python bench/notebook.py all

Programs take turns, round by round; medians are printed and put into `bench/results/notebook.json` with the command,
the versions and the machine. Packages come from the machine's own index, so "cold" includes its network; torch and the
models come from servers on loopback, which count requests. The drive of `archive` is a hub on loopback.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import registry
from peers import Folders
from record import Record
from scratch import working_in

from haversack.packages.lock import KERNEL

RECORD = Record("notebook", ("nbclient", "ipykernel"))
FOUR = ("pandas", "scikit-learn", "seaborn", "matplotlib")
# Imported, so that they are found; not executed, because imports are not what is measured.
IMPORTS = "if False:\n    import pandas, sklearn, seaborn, matplotlib"
EIGHTEEN = (
    *("attrs", "beautifulsoup4", "click", "colorama", "httpx", "jinja2", "joblib", "lxml", "networkx"),
    *("psutil", "pydantic", "pyyaml", "regex", "requests", "rich", "sympy", "tabulate", "tqdm"),
)
MEBIBYTE = 1 << 20
MODELS = 4  # files
MODEL_SIZE = 250 * 10**6  # bytes
FETCH = """
import os, urllib.request
home = os.environ.get('HF_HOME') or os.path.expanduser('~/.cache/huggingface')
cache = os.path.join(home, 'hub')
os.makedirs(cache, exist_ok=True)
for number in range({count}):
    path = os.path.join(cache, f'model-{{number}}.safetensors')
    if not os.path.exists(path):
        urllib.request.urlretrieve(f'{url}/models/{{number}}', path)
    assert os.path.getsize(path) == {size}
"""
WITHOUT_INDEX = {
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_EXTRA_INDEX_URL": "",
    "PIP_FIND_LINKS": "",
}
COUNT_SESSIONS = """
from google.colab import drive
drive.mount('/content/drive')
path = '/content/drive/MyDrive/sessions.txt'
session = int(open(path).read()) + 1 if os.path.exists(path) else 1
with open(path, 'w') as file: file.write(str(session))
if session < 3: os._exit(1)
print('sessions', session)
"""


def run_environment(folders: Folders, rounds: int) -> None:
    """The environment of four packages: by haversack in a job, by juv, by pip; caches empty, then full.

    haversack's time without the job is what remains when an empty notebook's is taken away.
    """
    plain = notebook(folders, "empty", "1")
    four = notebook(folders, "four", IMPORTS)
    declared = notebook(folders, "declared", metadata(FOUR), IMPORTS)
    folders.run("haversack", plain)
    for state in ("cold", "warm"):

        def emptied(*caches: str, state: str = state) -> None:
            folders.empty("haversack", "data", *(caches if state == "cold" else ()))

        def by_haversack() -> float:
            emptied("uv")
            return folders.run("haversack", four)

        def by_pip() -> float:
            emptied("pip")
            return folders.pip_environment("ipykernel", *FOUR)

        def by_juv() -> float:
            emptied("uv")
            return folders.run("juv", declared)

        measured = in_turns(
            rounds,
            {
                "haversack": by_haversack,
                "haversack, an empty notebook": lambda: folders.run("haversack", plain, "--no-install"),
                "pip": by_pip,
                "juv": by_juv,
            },
        )
        measured["haversack, the environment alone"] = measured["haversack"] - measured["haversack, an empty notebook"]
        put(folders, "environment", f"four packages, {state}", rounds, measured, "pip")


def run_again(folders: Folders, rounds: int) -> None:
    """The same lock again, in another job, beside a job without packages."""
    four = notebook(folders, "four", IMPORTS)
    folders.run("haversack", four)
    measured = in_turns(
        rounds,
        {
            "the same lock again": lambda: folders.run("haversack", four),
            "no packages at all": lambda: folders.run("haversack", four, "--no-install"),
        },
    )
    measured["more"] = measured["the same lock again"] - measured["no packages at all"]
    put(folders, "again", "four packages", rounds, measured, "no packages at all")


def run_archive(folders: Folders, rounds: int) -> None:
    """The four packages on a second machine, from the archive of an environment page on the drive; pip with its index.

    The first machine, which is not measured, stores the archive. The second one has empty folders and reaches no index.
    """
    plain = notebook(folders, "empty", "1")
    page = notebook(folders, "page", f"import haversack\nhaversack.environment(packages={list(FOUR)})")
    four = notebook(folders, "four", IMPORTS)
    with hub(folders) as reached:
        first = Folders(folders.root, reached)
        first.empty("haversack", "data", "home")
        first.run("haversack", four, "--env", str(page))
        (stored,) = (folders.root / "hub" / "My Drive" / "haversack" / "environments").glob("*.zip")
        second = Folders(folders.root, reached | WITHOUT_INDEX)

        def by_haversack() -> float:
            second.empty("uv", "haversack", "data", "home")
            return second.run("haversack", four, "--env", str(page))

        def by_pip() -> float:
            folders.empty("pip")
            return folders.pip_environment("ipykernel", *FOUR)

        measured = in_turns(
            rounds,
            {
                "haversack": by_haversack,
                "haversack, an empty notebook": lambda: second.run("haversack", plain, "--no-install"),
                "pip": by_pip,
            },
        )
        measured["haversack, the environment alone"] = measured["haversack"] - measured["haversack, an empty notebook"]
        name = f"four packages, an archive of {stored.stat().st_size / 10**6:.0f} MB"
        put(folders, "second machine", name, rounds, measured, "pip")


def run_pip(folders: Folders, rounds: int) -> None:
    """The seconds of the cell `!pip install` of 18 packages: in haversack, and in a kernel of nbclient's own."""
    cells = ["import time; begin = time.time()", f"!pip install -q {' '.join(EIGHTEEN)}", "print(time.time() - begin)"]
    path = notebook(folders, "pip", *cells)
    for state in ("cold", "warm"):

        def cell(program: str, state: str = state) -> float:
            if state == "cold":
                folders.empty("uv", "pip")
            folders.remove_program("jupyter execute")
            folders.install_pip("jupyter execute")
            folders.run(program, path)
            return float(shown(path, 2))

        programs: dict[str, Callable[[], float]] = {
            "haversack": lambda cell=cell: cell("haversack"),
            "jupyter execute": lambda cell=cell: cell("jupyter execute"),
        }
        measured = in_turns(rounds, programs)
        put(folders, "pip install", f"18 packages, {state}", rounds, measured, "jupyter execute")


def run_empty(folders: Folders, rounds: int) -> None:
    """An empty notebook, the whole process; every program has run it before."""
    path = notebook(folders, "empty", "1")
    programs: dict[str, Callable[[], float]] = {
        name: lambda name=name: folders.run(name, path) for name in ("haversack", "papermill", "jupyter execute", "juv")
    }
    programs["haversack --no-install"] = lambda: folders.run("haversack", path, "--no-install")
    for run in programs.values():
        run()
    measured = in_turns(rounds, programs)
    put(folders, "empty notebook", "one cell", rounds, measured, "papermill")


def run_output(folders: Folders, rounds: int) -> None:
    """One line of 1 MB beside a thousand lines of 1 kB: the seconds beyond an empty notebook."""
    paths = {
        "empty": notebook(folders, "empty", "1"),
        "one line of 1 MB": notebook(folders, "line", f"print('A' * {MEBIBYTE})"),
        "a thousand lines of 1 kB": notebook(folders, "lines", "for _ in range(1024):\n    print('A' * 1023)"),
    }
    programs: dict[str, Callable[[], float]] = {
        f"{name}, {what}": lambda name=name, path=path: folders.run(name, path)
        for name in ("haversack", "papermill", "jupyter execute")
        for what, path in paths.items()
        # nbclient searches a line with a regular expression whose time grows with the square of the line's length.
        if name == "haversack" or what != "one line of 1 MB"
    }
    measured = in_turns(rounds, programs)
    put(folders, "output", "1 MB", rounds, measured, "haversack, a thousand lines of 1 kB")


def run_torch(folders: Folders, rounds: int) -> None:
    """Which build of torch comes where there is no GPU: wheels that are asked for, out of two indexes on loopback."""
    wheels = folders.root / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    registry.wheel(wheels / "cpu", "torch", "9.0.0+cpu", megabytes=5)
    for index in ("pypi", "cpu"):
        download(folders, wheels / index, *KERNEL)
    registry.wheel(wheels / "pypi", "torch", "9.0.0", requires=("nvidia-cublas==1.0",), megabytes=200)
    registry.wheel(wheels / "pypi", "nvidia-cublas", "1.0", megabytes=400)
    path = notebook(folders, "torch", "import torch\nprint(torch.__version__)")
    measured = {}
    for what, indexes in {"both builds": ("cpu", "pypi"), "only a CUDA build": ("pypi",)}.items():
        with registry.serving(wheels) as server:
            urls = [f"{server.url}/{index}/" for index in indexes]
            offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": urls[-1], "PIP_FIND_LINKS": ""}
            more = offline | ({"PIP_EXTRA_INDEX_URL": urls[0]} if len(urls) > 1 else {})
            alone = Folders(folders.root, more)
            alone.empty("uv", "haversack", "data")
            seconds = alone.run("haversack", path)
            asked = [one for one in server.asked if "torch" in one or "nvidia" in one]
            size = sum((wheels / one.lstrip("/")).stat().st_size for one in asked)
            measured[what] = {
                "seconds": seconds,
                "version": shown(path, 0).strip(),
                "wheels": [Path(one).name for one in asked],
                "MB": size / 10**6,
            }
    print(json.dumps(measured, indent=1))
    RECORD.put("torch", "without a GPU", {"command": command(), "cases": measured, "versions": folders.versions()})


def run_models(folders: Folders, rounds: int) -> None:
    """1 GB of model files in the cache that a library uses, over three sessions: how often each file is fetched."""
    files = folders.root / "served" / "models"
    files.mkdir(parents=True, exist_ok=True)
    for number in range(MODELS):
        with open(files / str(number), "wb") as file:
            file.truncate(MODEL_SIZE)
    with registry.serving(folders.root / "served") as server:
        fetch = FETCH.format(count=MODELS, url=server.url, size=MODEL_SIZE)
        path = notebook(folders, "models", fetch, COUNT_SESSIONS)
        folders.empty("haversack", "data", "home")
        seconds = folders.run("haversack", path)
        asked = list(server.asked)
    measured = {
        "seconds": seconds,
        "sessions": shown(path, 1).strip().splitlines()[-1],
        "requests": len(asked),
        "times each file": max(asked.count(one) for one in set(asked)),
        "GB": len(asked) * MODEL_SIZE / 10**9,
    }
    print(json.dumps(measured, indent=1))
    RECORD.put("models", "1 GB, three sessions", {"command": command(), **measured, "versions": folders.versions()})


@contextmanager
def hub(folders: Folders) -> Iterator[dict[str, str]]:
    """Run a hub on loopback that serves an empty drive; yield the variables by which a machine reaches it."""
    for name in ("hub", "hub-data"):
        shutil.rmtree(folders.root / name, ignore_errors=True)
    token, state = secrets.token_urlsafe(24), folders.root / "hub.json"
    state.unlink(missing_ok=True)
    command = [str(folders.program("haversack") / "haversack"), "hub", "--root", str(folders.root / "hub")]
    variables = folders.variables | {"HAVERSACK_TOKEN": token, "HAVERSACK_DATA": str(folders.root / "hub-data")}
    process = subprocess.Popen(
        [*command, "--port", "0", "--state", str(state)], env=variables, stdout=subprocess.DEVNULL
    )
    try:
        while not state.exists():
            if process.poll() is not None:
                raise SystemExit("The hub ended before it answered.")
            time.sleep(0.02)
        yield {"HAVERSACK_HUB": json.loads(state.read_text())["url"], "HAVERSACK_TOKEN": token}
    finally:
        process.terminate()
        process.wait()


def notebook(folders: Folders, name: str, *cells: str) -> Path:
    """A notebook of these cells."""
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    path = folders.root / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(made, path)
    return path


def metadata(packages: Iterable[str]) -> str:
    """A cell that declares packages as juv reads them (https://peps.python.org/pep-0723/)."""
    listed = "".join(f'#     "{package}",\n' for package in packages)
    return f"# /// script\n# dependencies = [\n{listed}# ]\n# ///"


def shown(path: Path, cell: int) -> str:
    """What a cell of an executed notebook printed."""
    outputs = nbformat.read(path.with_suffix(".executed.ipynb"), as_version=4).cells[cell].outputs
    return "".join(output.get("text", "") for output in outputs)


def download(folders: Folders, target: Path, *packages: str) -> None:
    """Put the wheels of these packages and of what they require into a folder."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary", ":all:", "-d", str(target), *packages]
    subprocess.run(command, check=True)


def in_turns(rounds: int, programs: dict[str, Callable[[], float]]) -> dict[str, float]:
    """The median seconds of each program, which take turns."""
    found: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, run in programs.items():
            found[name].append(run())
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def put(folders: Folders, kind: str, name: str, rounds: int, measured: dict[str, float], base: str) -> None:
    """Print the medians and their ratios to `base`, and add them to the results."""
    print(f"\n{kind}: {name}, medians of {rounds}")
    rows: dict[str, Any] = {}
    for program, seconds in measured.items():
        rows[program] = {"seconds": seconds, f"/ {base}": seconds / measured[base]}
        print(f"  {program:44} {seconds:8.2f} s   {seconds / measured[base]:6.2f} × {base}")
    RECORD.put(kind, name, {"command": command(), "rounds": rounds, "programs": rows, "versions": folders.versions()})


def command() -> str:
    return " ".join(["python", "bench/notebook.py", *sys.argv[1:]])


RUNS: dict[str, Callable[[Folders, int], None]] = {
    "environment": run_environment,
    "again": run_again,
    "archive": run_archive,
    "pip": run_pip,
    "empty": run_empty,
    "output": run_output,
    "torch": run_torch,
    "models": run_models,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*RUNS, "all"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="a folder for environments, which is kept")
    given = parser.parse_args()
    with working_in(given.scratch) as root:
        for name in RUNS if given.what == "all" else [given.what]:
            RUNS[name](Folders(root), given.rounds)


if __name__ == "__main__":
    main()
