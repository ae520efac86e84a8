"""The programs that `notebook.py` compares: each in a virtual environment of its own, with its bytecode compiled.

haversack is installed from this checkout's wheel, papermill, nbclient (`jupyter execute`) and juv from the machine's
package index. Every process gets an environment without this checkout, with empty folders of its own, and without
PYTHONDONTWRITEBYTECODE, which would make the peers compile their imports again in each process.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from uv import find_uv_bin

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "papermill": ["papermill", "ipykernel"],
    "jupyter execute": ["nbclient", "jupyter-core", "ipykernel"],
    "juv": ["juv"],
}
_HIDDEN = re.compile(r"^(HAVERSACK_|KAGGLE_|PYTHON|VIRTUAL_ENV|UV_|JUPYTER|IPYTHON|XDG_)")


@dataclass(frozen=True)
class Folders:
    """What one measurement may keep: below `root`, each program's environment, and caches that can be emptied."""

    root: Path
    more: dict[str, str] = field(default_factory=dict)

    def empty(self, *names: str) -> None:
        """Delete the caches of these names ("uv", "pip", "haversack", "data")."""
        for name in names:
            shutil.rmtree(self.root / "caches" / name, ignore_errors=True)

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of a process."""
        kept = {name: value for name, value in os.environ.items() if not _HIDDEN.match(name)}
        caches = self.root / "caches"
        own = {
            "HOME": str(caches / "home"),
            "UV_CACHE_DIR": str(caches / "uv"),
            "PIP_CACHE_DIR": str(caches / "pip"),
            "HAVERSACK_CACHE": str(caches / "haversack"),
            "HAVERSACK_DATA": str(caches / "data"),
            "HAVERSACK_HUB": "embedded",
            "PATH": f"{Path(find_uv_bin()).parent}:{os.environ['PATH']}",
        }
        return kept | own | self.more

    def program(self, name: str) -> Path:
        """The `bin` folder of a program's environment, which is made if it is not there."""
        folder = self.root / "programs" / name.replace(" ", "-")
        if not folder.exists():
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            uv = find_uv_bin()
            packages = [self._wheel()] if name == "haversack" else PACKAGES[name]
            _call(uv, "venv", "-q", "--relocatable", str(part))
            _call(uv, "pip", "install", "-q", "--compile-bytecode", "--python", str(part), *packages)
            part.rename(folder)
        return folder / "bin"

    def remove_program(self, name: str) -> None:
        """Delete a program's environment, with what a notebook installed into it."""
        shutil.rmtree(self.root / "programs" / name.replace(" ", "-"), ignore_errors=True)

    def install_pip(self, name: str) -> None:
        """Give a program's environment pip, for the cells of its notebooks."""
        _call(str(self.program(name) / "python"), "-m", "ensurepip", "--default-pip")

    def _wheel(self) -> str:
        folder = self.root / "wheel"
        _call(find_uv_bin(), "build", "-q", "--wheel", "--out-dir", str(folder), str(ROOT))
        return str(max(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime))

    def run(self, name: str, notebook: Path, *options: str, limit: float = 600.0) -> float:
        """Execute a notebook by a program; return the seconds of the whole process.

        The executed notebook is beside the given one, with the suffix `.executed.ipynb`. Raises `SystemExit` if the
        program fails or takes longer than `limit` seconds.
        """
        executed = notebook.with_suffix(".executed.ipynb")
        shutil.copy(notebook, executed)
        bin_ = self.program(name)
        commands = {
            "haversack": [str(bin_ / "haversack"), "run", str(notebook), "-o", str(executed), *options],
            "papermill": [str(bin_ / "papermill"), "--no-progress-bar", "-k", "python3", str(notebook), str(executed)],
            "jupyter execute": [str(bin_ / "jupyter-execute"), "--inplace", str(executed)],
            "juv": [str(bin_ / "juv"), "exec", "--quiet", str(executed)],
        }
        return self.timed(commands[name], limit, bin_)

    def timed(self, command: list[str], limit: float = 600.0, bin_: Path | None = None) -> float:
        """The seconds that a command takes, with `bin_` first on PATH, as in an activated environment.

        Raises `SystemExit` if it fails or takes longer than `limit` seconds.
        """
        variables = self.variables
        if bin_ is not None:
            variables["PATH"] = f"{bin_}:{variables['PATH']}"
        (self.root / "caches" / "home").mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        try:
            done = subprocess.run(command, env=variables, cwd=self.root, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            raise SystemExit(f"{' '.join(command)} took more than {limit:.0f} s.") from None
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
        return time.perf_counter() - started

    def pip_environment(self, *packages: str) -> float:
        """The seconds that `python -m venv` and pip take to make an environment of these packages."""
        folder = self.root / "pip-environment"
        shutil.rmtree(folder, ignore_errors=True)
        made = self.timed([sys.executable, "-m", "venv", str(folder)])
        return made + self.timed([str(folder / "bin" / "python"), "-m", "pip", "install", "-q", *packages])

    def versions(self) -> dict[str, str]:
        """The version of each program whose environment is there, of uv and of pip."""
        found = {"uv": _call(find_uv_bin(), "--version").split()[1]}
        for name in ("haversack", *PACKAGES):
            python = self.root / "programs" / name.replace(" ", "-") / "bin" / "python"
            if python.exists():
                package = "nbclient" if name == "jupyter execute" else name
                code = f"from importlib.metadata import version; print(version({package!r}))"
                found[name] = _call(str(python), "-c", code).strip()
        found["pip"] = _call(sys.executable, "-m", "pip", "--version").split()[1]
        return found


def _call(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
