"""An index of tiny wheels that pip's configuration names; and an environment whose pip uv serves."""

from __future__ import annotations

import ensurepip
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import uv

from haversack.packages import pip_hook
from haversack.packages.lock import Locker
from haversack.packages.requirements import Requirements, requirements_of
from haversack.packages.store import Store
from haversack.packages.uv import Uv
from tests.packages.wheels import index, wheel

BUDGET = 10**9


class Workshop:
    """The index, and what makes locks and environments from it.

    Attributes:
        wheels: the folder of the index's wheels.
        shown: the lines of progress so far.
        notices: the sentences so far.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wheels = folder / "wheels"
        self.cache = folder / "cache"
        self.shown: list[str] = []
        self.notices: list[str] = []
        for name in ("ipykernel", "pip", "setuptools", "six"):
            wheel(self.wheels, name, "20.0")
        self.publish()

    def publish(self) -> str:
        """Put all wheels made so far into the index, and return its address."""
        return index(self.folder / "index", *self.wheels.glob("*.whl"))

    @property
    def uv(self) -> Uv:
        return Uv.make(self.cache, self.shown.append, self.notices.append)

    @property
    def locker(self) -> Locker:
        return Locker(self.cache / "environments" / "locks", self.uv)

    def store(self, budget: int = BUDGET) -> Store:
        return Store(self.cache / "environments", budget, self.uv, compiles=False)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    made = Workshop(tmp_path)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", made.publish())
    return made


def needs(*requirements: str, python: str = "", lock: str = "", block: str = "") -> Requirements:
    """What a notebook with these requirements in a PEP 723 block needs."""
    listed = ", ".join(f'"{one}"' for one in requirements)
    version = f'# requires-python = "{python}"\n' if python else ""
    cell = f"# /// script\n{version}# dependencies = [{listed}]\n# ///"
    return requirements_of([cell], {"uv.lock": lock} if lock else {})


ROOT = Path(__file__).parents[2]
UV = uv.find_uv_bin()
# Where Python keeps pip's wheel, and where Debian does.
PIP = next(
    path
    for folder in (Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels"))
    for path in folder.glob("pip-*.whl")
)


@dataclass(frozen=True)
class Environment:
    """An environment with pip, served by uv, and the environment variables of its processes."""

    folder: Path
    variables: dict[str, str]

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder.parent, env={**self.variables, **variables}, capture_output=True, text=True
        )

    def pip(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("python", "-m", "pip", *arguments, **variables)

    def version(self, project: str) -> str:
        """The version of a project that is installed; "" if none is."""
        return next(
            (path.name.split("-")[1] for path in self.packages.glob(f"{project}-*.dist-info")), ""
        ).removesuffix(".dist")

    @property
    def packages(self) -> Path:
        return next(self.folder.glob("lib/python*/site-packages"))


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of wheels of all tests, with its index in `simple`. Some have the names of projects in the table."""
    folder = tmp_path_factory.mktemp("wheels")
    for version in ("1.0", "2.0"):
        wheel(folder, "tinybase", version)
        wheel(folder, "tinytop", version, needs=["tinybase"])
    wheel(folder, "tinyold", "1.0", needs=["tinybase<2"])
    wheel(folder, "tabulate", "1.0")
    wheel(folder, "gdown", "1.0", needs=["tinybase>=2"])
    wheel(folder, "boto3", "1.0")
    wheel(folder, "seaborn", "1.0", source="import wordcloud")
    wheel(folder, "wordcloud", "1.0")
    (folder / PIP.name).write_bytes(PIP.read_bytes())
    index(folder / "simple", *folder.glob("*.whl"))
    return folder


@pytest.fixture(scope="session")
def made(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment with pip, to be copied."""
    folder = tmp_path_factory.mktemp("made") / "env"
    subprocess.run([UV, "venv", "-q", "--relocatable", "--python", sys.executable, folder], check=True)
    options = ["-q", "--compile-bytecode", "--default-index", (wheels / "simple").as_uri()]
    subprocess.run([UV, "pip", "install", *options, "--python", folder / "bin" / "python", "pip"], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "haversack.pth").write_text(f"{ROOT}\n")
    pip_hook.write(site)
    return folder


@pytest.fixture
def env(tmp_path: Path, wheels: Path, made: Path) -> Environment:
    # By hard links: pip and uv replace files, and so must a test.
    folder = Path(shutil.copytree(made, tmp_path / "env", symlinks=True, copy_function=os.link))
    return Environment(
        folder,
        {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "VIRTUAL_ENV": str(folder),
            "HAVERSACK_UV": UV,
            "UV_CACHE_DIR": str(tmp_path / "cache"),
            "PIP_INDEX_URL": (wheels / "simple").as_uri(),
            "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"),
        },
    )
