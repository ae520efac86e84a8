"""An import finder for the modules of Kaggle's own image: `kaggle_secrets`, `kaggle_datasets`, `kaggle_web_client`.

Runs in the kernel, and in Python processes that cells start. It is last on `sys.meta_path`, so modules that are there
already take precedence, as on Kaggle itself.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from haversack.notebook import channel
from haversack.notebook.place import children

_OURS = "haversack.notebook.kaggle"
_MODULES = {
    "kaggle_secrets": f"{_OURS}.user_secrets",
    "kaggle_datasets": f"{_OURS}.gcs",
    "kaggle_web_client": f"{_OURS}.web_client",
}


def install_marks() -> None:
    """Add the finder to this process and to those that cells start, if the job's notebook was written for Kaggle.

    Raises `OSError` if the job's environment cannot be written.
    """
    job = channel.job_folder()
    if job is not None and channel.KAGGLE in channel.dialects():
        install()
        children.install_finder(__name__, job)


def install() -> None:
    """Add the finder to this process. A second call does nothing."""
    if not any(isinstance(finder, KaggleFinder) for finder in sys.meta_path):
        sys.meta_path.append(KaggleFinder())


class KaggleFinder(MetaPathFinder, Loader):
    """Imports a module of the table by its name on Kaggle, with the public names of ours."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in _MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        ours = importlib.import_module(_MODULES[module.__name__])
        module.__doc__ = ours.__doc__
        module.__dict__.update({name: getattr(ours, name) for name in ours.__all__})
