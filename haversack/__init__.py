"""haversack: run Colab and Kaggle notebooks anywhere, and carry what must outlive the machine to the next one.

Public names are imported when they are first used, so `import haversack` stays fast:

    import haversack

    haversack.mount("/content/drive")                    # the drive as files
    data = haversack.dataset("kaggle:owner/name")        # read from the archive, without extracting it
    haversack.distribute()                               # every core, before the model is built
    history = haversack.fit(model, x, y, epochs=20)      # `model.fit`, exact on every core
    haversack.files.download("model.weights.h5")
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haversack import errors, runs
    from haversack.account import login
    from haversack.datasets.augment import Augmentation
    from haversack.datasets.images import Images
    from haversack.datasets.source import Dataset, dataset
    from haversack.drive.filesystem import DriveFileSystem
    from haversack.drive.fuse.mount import mount, unmount
    from haversack.notebook import files
    from haversack.notebook.environment_call import environment
    from haversack.training.checkpoints.checkpoints import Checkpoints
    from haversack.training.devices import devices
    from haversack.training.keras.distribute import distribute
    from haversack.training.keras.fit import fit
    from haversack.training.loops.resumable import resumable

__version__ = "0.1.0"

__all__ = [
    "Augmentation",
    "Checkpoints",
    "Dataset",
    "DriveFileSystem",
    "Images",
    "dataset",
    "devices",
    "distribute",
    "environment",
    "errors",
    "files",
    "fit",
    "login",
    "mount",
    "resumable",
    "runs",
    "unmount",
]

# Public name -> the module that defines it, or that it is.
_HOME = {
    "Augmentation": "haversack.datasets.augment",
    "Checkpoints": "haversack.training.checkpoints.checkpoints",
    "Dataset": "haversack.datasets.source",
    "DriveFileSystem": "haversack.drive.filesystem",
    "Images": "haversack.datasets.images",
    "dataset": "haversack.datasets.source",
    "devices": "haversack.training.devices",
    "distribute": "haversack.training.keras.distribute",
    "environment": "haversack.notebook.environment_call",
    "errors": "haversack.errors",
    "files": "haversack.notebook.files",
    "fit": "haversack.training.keras.fit",
    "login": "haversack.account",
    "mount": "haversack.drive.fuse.mount",
    "resumable": "haversack.training.loops.resumable",
    "runs": "haversack.runs",
    "unmount": "haversack.drive.fuse.mount",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'haversack' has no attribute {name!r}")
    try:
        module = importlib.import_module(_HOME[name])
    except ModuleNotFoundError as error:
        if os.environ.get("HAVERSACK_CLIENTS") != "process":
            raise
        # The environment is the notebook's own, and no cell showed that the notebook imports haversack.
        from haversack.errors import ExtraMissing

        raise ExtraMissing(
            f"haversack.{name} needs {error.name}, which the environment of this notebook lacks.",
            "Write `import haversack` in a cell, and the environment gets what haversack needs.",
        ) from None
    value = module if name in ("errors", "files", "runs") else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
