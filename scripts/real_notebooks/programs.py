"""The programs that execute the notebooks, each in an environment of its own, and what is kept of each run.

haversack is installed from its wheel into an empty environment, papermill into another, both by uv from the machine's
own package index. A notebook runs in an empty folder with an empty home; of the environment it sees what pip's
configuration needs, and nothing of this checkout. It has `LIMIT` seconds; then everything that it started is killed.
What a notebook reads below `/kaggle/input` is published to the run's own hub before, for programs that have one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.real_notebooks import cells, inputs

LIMIT = 900.0  # seconds a notebook
CELL_LIMIT = "10m"
# What a notebook does not see of the environment: this checkout's, and sign-ins.
_HIDDEN = re.compile(r"^(HAVERSACK_|KAGGLE_|PYTHON|VIRTUAL_ENV|UV_PROJECT|GOOGLE_|XDG_|JUPYTER|IPYTHON|HF_|CONDA)")
# A command or a call that fetches a URL.
_FETCH = re.compile(r"\b(?:wget|curl|git clone|gdown|pip3? install|urlretrieve|get_file)\b.*?\bhttps?://([\w.-]+)")
_COLOR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass
class Outcome:
    """One run of one notebook by one program.

    Attributes:
        status: "done", "failed", or "time" if it was killed at the limit.
        seconds: how long the program ran.
        replaced: lines that were replaced before.
        cell: index of the cell that stopped it, among the published notebook's; None if no cell did.
        source: that cell's source.
        error: the class of its error; "" if no cell raised.
        message: the error's message or, if no cell raised, the last lines of the program.
        text: the traceback, without colours.
        printed: what earlier cells and this one printed, for messages of commands that failed; and what the program
            printed, if no cell raised.
        fetches: the lines of the executed cells that fetch something from a host that this machine cannot resolve, as
            (host, line).
        published: the error that this cell has in the published notebook, "class: message"; "" if it has none.
        ran: whether the published notebook shows that this cell was executed there without an error.
        imported: the names that the executed cells import, each with the first name of its module.
        asks_for_object: whether an executed cell asks which columns of a table have the type "object".
        accelerator: the accelerator that the published notebook asks Colab for; "" if none.
    """

    status: str
    seconds: float
    replaced: int = 0
    cell: int | None = None
    source: str = ""
    error: str = ""
    message: str = ""
    text: str = ""
    printed: str = ""
    fetches: list[tuple[str, str]] = field(default_factory=list)
    published: str = ""
    ran: bool = False
    imported: dict[str, str] = field(default_factory=dict)
    asks_for_object: bool = False
    accelerator: str = ""


@dataclass(frozen=True)
class Program:
    """A program that executes notebooks.

    Attributes:
        name: what it is called in results.
        packages: what is installed into its environment; "WHEEL" is this checkout's wheel.
        command: its command line, of its environment's `bin` folder, the notebook, the executed one, and the sources
            of the data sets that it reads.
        publish: the command line, of its environment's `bin` folder, that publishes a zip archive as a source to the
            run's own hub; None if the program has none, and then its notebooks find no data sets.
    """

    name: str
    packages: tuple[str, ...]
    command: Callable[[Path, Path, Path, Sequence[str]], list[str]] = field(repr=False)
    publish: Callable[[Path, Path, str], list[str]] | None = field(default=None, repr=False)

    def prepare(self, folder: Path, wheel: Path) -> None:
        """Make its environment in `folder`/environments, anew; the wheel's version may be the same as before."""
        environment = folder / "environments" / self.name
        shutil.rmtree(environment, ignore_errors=True)
        wanted = [str(wheel) if package == "WHEEL" else package for package in self.packages]
        _call("uv", "venv", "-q", str(environment))
        _call("uv", "pip", "install", "-q", "--compile-bytecode", "--python", str(environment), *wanted)

    def run(
        self, notebook: Path, published: dict[str, Any], folder: Path, key: str, sources: Sequence[str] = ()
    ) -> Outcome:
        """Execute a notebook and return how it ended.

        Args:
            notebook: the notebook, with its lines replaced.
            published: the notebook as it was published.
            folder: the folder with `environments`; the run's files are in `work`/`key` there while it lasts.
            key: a name for that folder.
            sources: the data sets that the notebook reads, as `inputs.SETS` names them.
        """
        work = folder / "work" / key
        shutil.rmtree(work, ignore_errors=True)
        for name in ("home", "cwd"):
            (work / name).mkdir(parents=True)
        executed = work / "executed.ipynb"
        bin_, environment = folder / "environments" / self.name / "bin", _environment(folder, work)
        try:
            for source in sources if self.publish else ():
                archive = inputs.write(source, work / "inputs")
                _call(*self.publish(bin_, archive, source), cwd=work, env=environment, stdout=subprocess.DEVNULL)
            status, seconds = _run(self.command(bin_, notebook, executed, sources), work, environment)
            log = (work / "log").read_text(errors="replace")
            return outcome(status, seconds, executed, published, log)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _haversack(bin_: Path, notebook: Path, executed: Path, sources: Sequence[str]) -> list[str]:
    given = [part for source in sources for part in ("--input", source)]
    return [str(bin_ / "haversack"), "run", str(notebook), "-o", str(executed), "--cell-timeout", CELL_LIMIT, *given]


def _haversack_put(bin_: Path, archive: Path, source: str) -> list[str]:
    return [str(bin_ / "haversack"), "data", "put", str(archive), source]


def _papermill(bin_: Path, notebook: Path, executed: Path, _: Sequence[str]) -> list[str]:
    return [str(bin_ / "papermill"), "--no-progress-bar", "-k", "python3", str(notebook), str(executed)]


PROGRAMS = {
    "haversack": Program("haversack", ("WHEEL",), _haversack, _haversack_put),
    "papermill": Program("papermill", ("papermill", "ipykernel"), _papermill),
}


def build_wheel(root: Path, folder: Path) -> Path:
    """The wheel of the checkout at `root`, built into `folder`/wheel."""
    shutil.rmtree(folder / "wheel", ignore_errors=True)
    _call("uv", "build", "-q", "--wheel", "--out-dir", str(folder / "wheel"), str(root))
    [wheel] = (folder / "wheel").glob("*.whl")
    return wheel


def _call(*command: str, **more: Any) -> None:
    subprocess.run(command, check=True, **more)


def _environment(folder: Path, work: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not _HIDDEN.match(name)}
    own = {
        "HOME": str(work / "home"),
        "HAVERSACK_DATA": str(work / "data"),
        "HAVERSACK_CACHE": str(folder / "cache"),
        "HAVERSACK_HUB": "embedded",
        "UV_CACHE_DIR": str(folder / "uv"),
    }
    return kept | own


def _run(command: list[str], work: Path, environment: dict[str, str]) -> tuple[int | None, float]:
    """(exit status, or None if it was killed at the limit; seconds)."""
    started = time.monotonic()
    with open(work / "log", "w") as log:
        process = subprocess.Popen(
            command,
            cwd=work / "cwd",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            return process.wait(LIMIT), time.monotonic() - started
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            _end(process)
            return None, time.monotonic() - started


def _end(process: subprocess.Popen[bytes]) -> None:
    """Give it time to end as after Ctrl-C, then kill what is left of its process group."""
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def outcome(status: int | None, seconds: float, executed: Path, published: dict[str, Any], log: str) -> Outcome:
    """How a run ended, read from its exit status, the executed notebook and the program's own output."""
    word = "time" if status is None else "failed" if status else "done"
    found = Outcome(word, round(seconds, 1), accelerator=str(published["metadata"].get("accelerator") or ""))
    found.message = _COLOR.sub("", log)[-4000:].strip()
    found_cells = json.loads(executed.read_bytes())["cells"] if executed.exists() else []
    code = [cell for cell in found_cells if cell["cell_type"] == "code"]
    failing = next((cell for cell in reversed(code) if _error(cell)), None) if word == "failed" else None
    upto = code[: code.index(failing) + 1] if failing else code
    sources = ["".join(cell["source"]) for cell in upto]
    found.fetches, found.imported = _fetches(sources), cells.imported(sources)
    found.asks_for_object = cells.asks_for_object(sources)
    found.printed = "\n".join(_printed(cell) for cell in upto)[-20_000:]
    if not failing:
        found.printed += f"\n{found.message}"
    else:
        _add_error(found, failing, published)
    return found


def _add_error(found: Outcome, failing: dict[str, Any], published: dict[str, Any]) -> None:
    error = _error(failing)
    assert error is not None
    found.source = "".join(failing["source"])
    found.error, found.message = error["ename"], _COLOR.sub("", error["evalue"])[:4000]
    found.text = _COLOR.sub("", "\n".join(error["traceback"]))[-20_000:]
    for index, cell in enumerate(published["cells"]):
        if cell["cell_type"] == "code" and "".join(cell["source"]) == found.source:
            found.cell = index
            as_published = _error(cell)
            found.ran = cell.get("execution_count") is not None and as_published is None
            if as_published:
                found.published = f"{as_published['ename']}: {_COLOR.sub('', as_published['evalue'])[:4000]}"
            break


def _fetches(sources: list[str]) -> list[tuple[str, str]]:
    lines = [line for source in sources for line in source.splitlines()]
    found = [(host, line.strip()) for line in lines for host in _FETCH.findall(line)]
    away = {host for host in {host for host, _ in found} if not _is_known(host)}
    return [(host, line) for host, line in found if host in away]


def _is_known(host: str) -> bool:
    """Whether this machine can resolve a host's name."""
    try:
        return bool(socket.getaddrinfo(host, 443))
    except OSError:
        return False


def _error(cell: dict[str, Any]) -> dict[str, Any] | None:
    return next((output for output in cell["outputs"] if output["output_type"] == "error"), None)


def _printed(cell: dict[str, Any]) -> str:
    streams = [output for output in cell["outputs"] if output["output_type"] == "stream"]
    return _COLOR.sub("", "".join("".join(output["text"]) for output in streams))
