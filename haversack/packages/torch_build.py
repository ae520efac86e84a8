"""Which build of PyTorch a `uv pip install` in a running job brings: for the CPU where there is no GPU.

The rule is `accelerator`'s, and so are its reasons. A job's environment is locked by that rule; this is for what its
cells install later, by name or as a dependency. What uv would do is found by `--dry-run`, which downloads nothing. Only
if it would bring a torch without a build's name, which on PyPI is the one for CUDA, is another one chosen:

1. PyTorch's index, if it can be reached (`--torch-backend cpu`).
2. The CPU build that is installed, if a dependency would replace it: `pip install torchvision` takes the torchvision of
   the torch that is there, and not the newest one with its torch.
3. A CPU build in the indexes and folders of wheels that pip is configured with, even if PyPI's version is newer:
   `2.13.0+cpu` from a folder of wheels is 2.5 GB less than PyPI's 2.14 and does the same.
4. None of these fits, for example with `torch==2.14`: the CUDA build is installed, and the user is told before.

A build that the notebook names (`torch==2.0.1+cu118`, PyTorch's own index) is not changed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from haversack.packages import accelerator, uv_pip
from haversack.packages.uv_pip import PackageChanges

_MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Choice:
    """`words` to add to the command, and a `notice` to print before it; both may be empty."""

    words: tuple[str, ...] = ()
    notice: str = ""


def choose(command: Sequence[str], variables: Mapping[str, str]) -> Choice:
    """Choose the build for `command`, a `uv pip install`, with uv's environment variables `variables`."""
    if accelerator.accelerator() != "cpu":
        return Choice()
    changes = _would_change(command, variables)
    if changes is None or "+" in changes.installed.get("torch", "+"):
        return Choice()
    if accelerator.pytorch_index_answers(_cache(), variables):
        return Choice(("--torch-backend", "cpu"))
    for words in _candidates(changes, variables):
        if _would_change([*command, *words], variables) is not None:
            return Choice(tuple(words))
    return Choice(
        notice=f"Only the CUDA build of torch {changes.installed['torch']} can be had, 2.5 GB with its libraries."
    )


def _candidates(changes: PackageChanges, variables: Mapping[str, str]) -> Iterator[list[str]]:
    """Requirements that choose CPU builds, to be tried in this order."""
    replaced = changes.removed.get("torch", "")
    if "+" in replaced:
        yield [f"torch=={replaced}"]
    builds = accelerator.CpuBuilds(_MINOR, variables)
    yield from builds.constraints(changes.installed)
    # The others of the family need not have a version that fits.
    yield from builds.constraints({"torch": ""})


def _would_change(command: Sequence[str], variables: Mapping[str, str]) -> PackageChanges | None:
    """Return what the command would change; None if it would fail."""
    words = [word for word in command if word not in ("--dry-run", "--no-cache")]
    outcome = uv_pip.run([*words, "--dry-run"], variables, lambda line: None)
    return None if outcome.status else outcome.changes


def _cache() -> Path:
    """haversack's cache folder, which a job's processes are told."""
    return Path(os.environ.get("HAVERSACK_CACHE") or Path.home() / ".cache" / "haversack")
