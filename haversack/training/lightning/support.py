"""Whether the installed Lightning does what resuming a fit rests on.

Documented are callbacks, `CombinedLoader`, the `state_dict`s, and the loops as attributes of the trainer. The names in
`_NAMES` are private, or attributes that Lightning's loops have only in an instance (`_IN_LOOPS`). They are looked up;
with versions that haversack was not tested with, `canary` shows that they still mean the same.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import torch

from haversack.training import verdict
from haversack.training.lightning.package import version

# From the first (included) to the last (excluded). Tests run 2.6.
_TESTED: verdict.Range = ((2, 6), (2, 7))
# Modules without the package, and attributes.
_NAMES = (
    ("utilities.combined_loader", "CombinedLoader"),
    ("trainer.connectors.logger_connector.result", "_ResultCollection.log"),
    ("trainer.connectors.logger_connector.result", "_ResultMetric"),
    ("trainer.connectors.checkpoint_connector", "_CheckpointConnector.dump_checkpoint"),
    ("strategies", "SingleDeviceStrategy"),
)
# Attributes of a trainer.
_IN_LOOPS = (
    "fit_loop.epoch_progress.state_dict",
    "fit_loop.epoch_loop.state_dict",
    "fit_loop.epoch_loop.batch_progress.load_state_dict",
    "fit_loop.epoch_loop._results",
    "fit_loop.epoch_loop._batches_that_stepped",
    "fit_loop.epoch_loop.val_loop._seen_batches_per_dataloader",
    "fit_loop._data_fetcher",
    "_checkpoint_connector",
    "_logger_connector._progress_bar_metrics",
    "_logger_connector._logged_metrics",
    "_logger_connector._callback_metrics",
    "_logger_connector._first_loop_iter",
    "_logger_connector._current_fx",
)
_CANARY = "haversack.training.lightning.canary"
_ON_CPU = {"CUDA_VISIBLE_DEVICES": ""}  # the accelerator may be held by this process


def reason_unsupported(package: str, trainer: Any) -> str | None:
    """Why fits of `trainer` cannot be resumed with the installed Lightning, in words; None if they can."""
    missing = next((name for name in _IN_LOOPS if not _has(trainer, name)), None) or _missing(package)
    if missing:
        return f"{_title(package)} has no {missing.rpartition('.')[2]}, by which haversack saves and resumes fits"
    return _reason_failing(package)


@functools.cache
def _missing(package: str) -> str | None:
    return next((name for where, name in _NAMES if not verdict.exists(f"{package}.{where}", name)), None)


@functools.cache
def _reason_failing(package: str) -> str | None:
    if os.environ.get(verdict.VARIABLE) or verdict.is_in(version(package), _TESTED):
        return None
    name = package.replace(".", "_")
    versions = {name: version(package), "torch": str(torch.__version__)}
    failure = verdict.failure_of(_CANARY, versions, _title(package), _ON_CPU | {"HAVERSACK_CANARY_OF": package})
    return f"{_title(package)} fails haversack's check that a fit resumes exactly ({failure})" if failure else None


def _title(package: str) -> str:
    return f"Lightning {version(package)}"


def _has(trainer: Any, name: str) -> bool:
    found = trainer
    for attribute in name.split("."):
        if not hasattr(found, attribute):
            return False
        found = getattr(found, attribute)
    return True
