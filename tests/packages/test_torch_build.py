"""Without a GPU, torch is the CPU build: stand-in wheels, as PyPI and a folder of wheels would have them."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

import pytest

from tests.packages.conftest import Environment
from tests.packages.wheels import index, wheel

pytestmark = pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="for a machine without a GPU")
_TAG = f"cp{sys.version_info.major}{sys.version_info.minor}"
TAG = f"{_TAG}-{_TAG}-manylinux_2_17_{platform.machine()}"


@pytest.fixture
def options(env: Environment, tmp_path: Path) -> list[str]:
    """pip's options for an index with PyPI's torch, and a folder with an older one for the CPU. PyTorch's is away."""
    wheel(tmp_path / "pypi", "torch", "2.14.0", needs=["nvidia-cublas"])
    wheel(tmp_path / "pypi", "nvidia_cublas", "13.0")
    wheel(tmp_path / "pypi", "torchvision", "0.29.0", needs=["torch==2.14.0"])
    wheel(tmp_path / "pypi", "torchvision", "0.28.0", needs=["torch==2.13.0"])
    wheel(tmp_path / "pypi", "accelerate", "1.0", needs=["torch>=2"])
    wheel(tmp_path / "cpu", "torch", "2.13.0+cpu", tag=TAG)
    cache = tmp_path / "haversack"
    cache.mkdir()
    (cache / "pytorch-index").write_text("no")
    env.variables["HAVERSACK_CACHE"] = str(cache)
    return ["-i", index(tmp_path / "index", *(tmp_path / "pypi").glob("*.whl")), "-f", str(tmp_path / "cpu")]


@pytest.mark.parametrize("named", ["torch", "accelerate", "torch>=2.1"])
def test_the_cpu_build_is_taken_though_it_is_older(env: Environment, options: list[str], named: str) -> None:
    done = env.pip("install", *options, named)
    assert "torch-2.13.0+cpu" in done.stdout.splitlines()[-1]
    assert not list(env.packages.glob("nvidia*"))


def test_what_depends_on_torch_fits_the_one_that_is_there(env: Environment, options: list[str]) -> None:
    env.pip("install", "-q", *options, "torch")
    without_the_folder = options[:2]
    done = env.pip("install", *without_the_folder, "torchvision")
    assert done.stdout.splitlines()[-1] == "Successfully installed torchvision-0.28.0"
    assert (
        env.pip("install", *options, "torch").stdout.splitlines()[-1].startswith("Requirement already satisfied: torch")
    )


def test_where_only_cuda_fits_it_is_said_before(env: Environment, options: list[str]) -> None:
    done = env.pip("install", *options, "torch==2.14.0")
    assert done.stdout.startswith("haversack: Only the CUDA build of torch 2.14.0 can be had")
    assert (env.packages / "torch-2.14.0.dist-info").is_dir()


def test_a_build_that_is_named_is_installed(env: Environment, options: list[str], tmp_path: Path) -> None:
    wheel(tmp_path / "cpu", "torch", "2.0.1+cu118", tag=TAG)
    done = env.pip("install", *options, "torch==2.0.1+cu118")
    assert done.stdout.splitlines()[-1] == "Successfully installed torch-2.0.1+cu118"
