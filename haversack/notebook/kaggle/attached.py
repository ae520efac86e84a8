"""kagglehub finds the data sets and competitions that are attached to the job, as it does on Kaggle.

Runs in the kernel. kagglehub asks its registered resolvers for a path, the last one first. Ours answers for what is
below `/kaggle/input`, and leaves all else to kagglehub's own. What is attached is read from the job's record, so that a
version that was asked for and is not the attached one is downloaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from haversack.notebook import channel

_RECORD = "job.json"


def add_resolvers(registry: Any) -> None:
    """Register the resolvers in `kagglehub.registry`, after kagglehub has registered its own. Only in a job."""
    job = channel.job_folder()
    if job is None or not (job / "kaggle").is_dir():
        return
    for kind in ("dataset", "competition"):
        resolver = getattr(registry, f"{kind}_resolver", None)
        if resolver is not None:
            resolver.add_implementation(_Resolver(job, kind, hasattr(registry.Resolver, "_resolve")))


class _Resolver:
    """Resolves handles of kagglehub, of the kind "dataset" or "competition", to paths below `/kaggle/input`.

    `with_version` says that this kagglehub wants a version beside the path; older ones do not.
    """

    def __init__(self, job: Path, kind: str, with_version: bool) -> None:
        self._job = job
        self._kind = kind
        self._with_version = with_version

    def is_supported(self, handle: Any, path: str | None = None, **options: Any) -> bool:
        """Whether the handle's data set, in its version, is attached, and has the file `path` if one is asked for."""
        found = self._folder(handle)
        return found is not None and (path is None or (found / path).exists())

    def __call__(self, handle: Any, path: str | None = None, **options: Any) -> Any:
        """Return the path and the version, which is None for a competition; or the path alone."""
        folder = self._folder(handle)
        assert folder is not None
        found = str(folder / path if path else folder)
        return (found, self._version(handle)) if self._with_version else found

    def _folder(self, handle: Any) -> Path | None:
        name = self._attached(handle)
        return None if name is None else _input_folder(self._job) / name[0]

    def _version(self, handle: Any) -> int | None:
        name = self._attached(handle)
        return None if name is None else name[1]

    def _attached(self, handle: Any) -> tuple[str, int | None] | None:
        """Return the name and version of the input that the handle names; None if it is not attached."""
        if self._kind == "competition":
            wanted, asked = f"c/{handle.competition}", None
        else:
            wanted, asked = f"{handle.owner}/{handle.dataset}", handle.version if handle.is_versioned() else None
        for one in json.loads((self._job / _RECORD).read_text()).get("inputs", []):
            source, _, version = one["source"].removeprefix("kaggle:").partition("@")
            number = int(version) if version.isdigit() else None
            if source.lower() == wanted.lower() and asked in (None, number):
                return one["name"], number
        return None


def _input_folder(job: Path) -> Path:
    """Return `/kaggle/input` as the cells see it: without a `/kaggle`, the folder of the job that takes its place."""
    usual = Path("/kaggle/input")
    return usual if usual.is_dir() else job / "kaggle" / "input"
