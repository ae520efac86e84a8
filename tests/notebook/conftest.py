"""One job for a test: cells in, report and executed notebook out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uv

from haversack.notebook.job import job
from haversack.notebook.place import environment
from tests.notebook import environments, notebooks

Run = Callable[..., job.JobReport]


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Like `run`, for one job whose outputs several tests of a module look at."""
    folder = tmp_path_factory.mktemp("job")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("HAVERSACK_", "KAGGLE_", "XDG_"))]:
            patch.delenv(name)
        patch.setenv("HOME", str(folder))
        patch.setenv("HAVERSACK_DATA", str(folder / "data"))
        patch.setenv("HAVERSACK_CACHE", str(folder / "cache"))
        patch.setenv("HAVERSACK_INSTALL", "no")

        def run_cells(*sources: str, tags: dict[int, list[str]] | None = None, **options: Any) -> job.JobReport:
            notebook = notebooks.write(folder / "nb.ipynb", *sources, tags=tags)
            return job.run(notebook, folder / "out.ipynb", **options)

        yield run_cells


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run("cell", "cell", uploads=[…])` executes these cells as a job and returns its report."""

    def run_cells(*sources: str, tags: dict[int, list[str]] | None = None, **options: Any) -> job.JobReport:
        notebook = notebooks.write(tmp_path / "nb.ipynb", *sources, tags=tags)
        return job.run(notebook, tmp_path / "out.ipynb", **options)

    return run_cells


@pytest.fixture(scope="session")
def uv_cache_folder() -> str:
    """uv's cache folder of the machine's user: tests have another HOME, in which it would be empty."""
    done = subprocess.run([uv.find_uv_bin(), "cache", "dir"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def uv_cache(uv_cache_folder: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """uv uses the cache of the machine's user in this test."""
    monkeypatch.setenv("UV_CACHE_DIR", uv_cache_folder)
    return Path(uv_cache_folder)


@pytest.fixture(scope="session")
def bare_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with ipykernel and pip."""
    return environments.make(tmp_path_factory.mktemp("bare") / "env", *environments.BARE)


@pytest.fixture(scope="session")
def keras_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with Keras and JAX too."""
    folder = tmp_path_factory.mktemp("keras") / "env"
    return environments.make(folder, *environments.KERAS, compiled="ipykernel.kernelapp, keras")


@pytest.fixture
def in_bare(bare_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The jobs of this test have an environment of their own, with ipykernel and pip."""
    monkeypatch.setattr(environment, "create", lambda folder: environments.adopted_copy(bare_environment, folder))
    return bare_environment


@pytest.fixture
def in_keras(keras_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The jobs of this test have an environment of their own, with Keras and JAX too."""
    monkeypatch.setattr(environment, "create", lambda folder: environments.adopted_copy(keras_environment, folder))
    return keras_environment
