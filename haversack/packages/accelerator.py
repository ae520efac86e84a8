"""Which build of PyTorch an environment gets: for the CPU where there is no GPU.

On Linux, PyPI's torch is the one for CUDA, and brings its libraries along: 2.5 GB more than the CPU build, for nothing
where there is no GPU. The CPU builds are in PyTorch's own index, as versions such as `2.13.0+cpu`, which PyPI does not
allow. So, without a GPU:

1. uv takes them from PyTorch's index (`--torch-backend cpu`), if that can be reached. One request finds out; the answer
   is cached. uv itself would try for 6 to 10 s.
2. Else from the indexes and folders of wheels that pip is configured with, if they have such versions of torch and of
   torchvision and torchaudio, where these are needed: PyPI's stop at their import beside a CPU build of torch.
3. Else the CUDA build is all that can be had, and the user is told before the download.

With a GPU of NVIDIA's, uv chooses the build that its driver supports (`--torch-backend auto`) if PyTorch's index can be
reached, else PyPI's is taken.
"""

from __future__ import annotations

import base64
import itertools
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from haversack import disk

Accelerator = Literal["cpu", "cuda"]

_INDEXES = "https://download.pytorch.org/whl"  # below it, one index for each build, such as "cpu" or "cu126"
_PROBE_TIMEOUT = 3.0  # seconds
# How long an answer counts, in seconds: the index is not moved away, but a machine gets a network.
_REACHED, _NOT_REACHED = 7 * 86400, 3600
_FAMILY = ("torch", "torchvision", "torchaudio")
_TRIES = 3  # versions of each that are tried
_CUDA = re.compile(r"nvidia-|cuda-|triton$|torch$")
"""Projects of which only the CUDA build of torch needs any; torch itself is the larger for it."""


@cache
def accelerator() -> Accelerator:
    """Return "cuda" if NVIDIA's driver works on this machine, else "cpu". The driver is asked once in each process."""
    if shutil.which("nvidia-smi") is None:
        return "cpu"
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "cpu"
    return "cuda" if done.returncode == 0 and "GPU" in done.stdout else "cpu"


def pytorch_index_answers(folder: Path, variables: Mapping[str, str]) -> bool:
    """Whether PyTorch's index can be reached. The answer is cached in `folder`: for a week if yes, an hour if not.

    `variables` are uv's, with proxies and certificates.
    """
    kept = folder / "pytorch-index"
    try:
        answer, age = kept.read_text() == "yes", time.time() - kept.stat().st_mtime
        if age < (_REACHED if answer else _NOT_REACHED):
            return answer
    except OSError:
        pass  # nothing is kept yet
    answer = _fetch(f"{_INDEXES}/cpu/", variables, method="HEAD") is not None
    folder.mkdir(parents=True, exist_ok=True)
    disk.write(kept, "yes" if answer else "no", durable=False)
    return answer


def pytorch_index(packages: Mapping[str, str]) -> str:
    """Return the address of PyTorch's index for the build of torch in the locked `packages` (name → version).

    "" if its version has no mark of a build, such as `+cpu`.
    """
    build = packages.get("torch", "").partition("+")[2]
    return f"{_INDEXES}/{build}" if build else ""


def is_cpu_build(packages: Mapping[str, str]) -> bool:
    """Whether PyTorch in the locked `packages` (name → version) is for the CPU: torch, and what goes with it.

    So it is too where builds have no mark and bring no CUDA, as on macOS.
    """
    family = [packages[name] for name in _FAMILY if name in packages]
    is_marked = [version.endswith("+cpu") for version in family]
    return all(is_marked) or not (any(is_marked) or any(name.startswith("nvidia-") for name in packages))


def has_cpu_parts(packages: Mapping[str, str]) -> bool:
    """Whether one of PyTorch's projects in the locked `packages` (name → version) is a marked build for the CPU."""
    return any(packages.get(name, "").endswith("+cpu") for name in _FAMILY)


class CpuBuilds:
    """The CPU builds of PyTorch's projects that pip's own indexes and folders of wheels have for this machine.

    Args:
        minor: the Python version, such as "3.11".
        variables: uv's environment, with indexes, folders, proxies and certificates.
    """

    def __init__(self, minor: str, variables: Mapping[str, str]) -> None:
        texts = _listings(variables)
        self._versions = {name: _cpu_versions(name, minor, texts) for name in _FAMILY}

    def constraints(self, packages: Mapping[str, str]) -> list[list[str]]:
        """Return sets of constraints that choose CPU builds, to be tried in this order; [] if there are none.

        One set has `torch==X+cpu`, and the same for those of torchvision and torchaudio that the locked `packages`
        (name → version) hold.
        """
        names = [name for name in _FAMILY if name in packages]
        choices = [[f"{name}=={version}" for version in self._versions[name][:_TRIES]] for name in names]
        return [list(one) for one in itertools.product(*choices)]

    def exclusions(self) -> list[str]:
        """Return constraints that exclude these builds, which win over plain versions of the same number."""
        return [f"{name}!={version}" for name, versions in self._versions.items() for version in versions]


def _cpu_versions(project: str, minor: str, texts: list[str]) -> list[str]:
    """The versions `X+cpu` of a project, newest first, whose wheels for this machine are named in `texts`."""
    tag = f"cp{minor.replace('.', '')}"
    wheel = re.compile(rf"\b{project}-([\w.]+)(?:\+|%2B)cpu-{tag}-[\w.]+-\w*{platform.machine()}\w*\.whl", re.I)
    found = {version for text in texts for version in wheel.findall(text)}
    return [f"{version}+cpu" for version in sorted(found, key=_numbers, reverse=True)]


def cuda_size(pylock: str) -> int:
    """Return the bytes that torch for CUDA and its libraries take in `pylock`, a pylock.toml (PEP 751).

    0 if their sizes are unknown or there are none.
    """
    import tomllib

    total = 0
    for package in tomllib.loads(pylock).get("packages", []):
        if _CUDA.match(package["name"]):
            total += _largest(package.get("wheels", []))
    return total


def _largest(wheels: list[dict[str, Any]]) -> int:
    """The size of the largest of a package's wheels for this machine, in bytes."""
    fitting = [one for one in wheels if platform.machine() in str(one.get("url", one.get("name", "")))]
    return max((int(one.get("size", 0)) for one in fitting or wheels), default=0)


def _listings(variables: Mapping[str, str]) -> list[str]:
    """The names of the files in pip's folders of wheels, and the pages of its indexes for torch and its like."""
    texts = []
    for link in filter(None, variables.get("UV_FIND_LINKS", "").split(",")):
        folder = Path(link.removeprefix("file://"))
        if folder.is_dir():
            texts.append("\n".join(os.listdir(folder)))
        elif (page := _fetch(link, variables)) is not None:
            texts.append(page)
    indexes = [*variables.get("UV_INDEX", "").split(), variables.get("UV_DEFAULT_INDEX", "")]
    for index, project in itertools.product(filter(None, indexes), _FAMILY):
        page = f"{index.rstrip('/')}/{project}/" + ("index.html" if index.startswith("file:") else "")
        if (text := _fetch(page, variables)) is not None:
            texts.append(text)
    return texts


def _fetch(url: str, variables: Mapping[str, str], method: str = "GET") -> str | None:
    """The text at `url`, an address with or without a sign-in; None if it cannot be had within 3 s."""
    # Imported here: a job's kernel imports this module at its start, and rarely asks an index.
    import ssl
    import urllib.request

    parts = urlsplit(url)
    request = urllib.request.Request(
        urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])), method=method, headers=_sign_in(parts)
    )
    proxies = {
        scheme: proxy
        for scheme in ("http", "https")
        if (proxy := variables.get(f"{scheme.upper()}_PROXY") or variables.get(f"{scheme}_proxy"))
    }
    try:
        context = ssl.create_default_context(cafile=variables.get("SSL_CERT_FILE"))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(request, timeout=_PROBE_TIMEOUT) as answer:
            text: str = answer.read().decode(errors="replace")
            return text
    except (OSError, ValueError):
        return None


def _sign_in(parts: SplitResult) -> dict[str, str]:
    if not parts.username:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
