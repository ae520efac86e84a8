"""How far Lightning's loops are, and what was logged: read between two batches, and set in place.

Lightning's own restart sets flags in every loop and then guesses at which hook the checkpoint was written. Here the
state is set where it was read, inside the loop that asks for the next batch, so no loop is told that it restarts.

Private names of Lightning: `fit_loop.epoch_loop`, `_results`, `val_loop._seen_batches_per_dataloader`, `_data_fetcher`;
`trainer._logger_connector` and its dicts. `support` looks them up, and `canary` shows that they still mean the same.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch

from haversack.training.state_tree import decode, encode

_LOGGED = ("_progress_bar_metrics", "_logged_metrics", "_callback_metrics")
_METADATA = (
    "fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx", "metric_attribute",
)  # fmt: skip
_OF_RESULT = ("has_reset", "_forward_cache", "_computed", "_update_count")
_OF_MEAN = ("value", "cumulated_batch_size")


def capture_loops(trainer: Any) -> dict[str, Any]:
    """Return the counters of the fit loop and the loops in it, which are documented as their `state_dict`."""
    loop = trainer.fit_loop.epoch_loop
    seen = {str(index): count for index, count in loop.val_loop._seen_batches_per_dataloader.items()}
    return {"epochs": trainer.fit_loop.epoch_progress.state_dict(), "loops": loop.state_dict(), "validated": seen}


def restore_loops(trainer: Any, saved: dict[str, Any], steps: int | None = None) -> None:
    """Set the counters. In the middle of a pass, `steps` is the number of its batches that were fetched."""
    trainer.fit_loop.epoch_progress.load_state_dict(saved["epochs"])
    loop = trainer.fit_loop.epoch_loop
    for key, state in saved["loops"].items():
        path, _, last = key.rpartition(".")
        if last == "state_dict":
            (attrgetter(path)(loop) if path else loop).on_load_checkpoint(state)
        else:
            attrgetter(key)(loop).load_state_dict(state)
    seen = loop.val_loop._seen_batches_per_dataloader
    seen.clear()
    seen.update({int(index): count for index, count in saved["validated"].items()})
    if steps is not None:
        trainer.fit_loop._data_fetcher.fetched = steps


def begin_at(trainer: Any, saved: dict[str, Any]) -> None:
    """Let the fit loop begin with the epoch in which the state was saved."""
    epochs = {which: dict(counters) for which, counters in saved["epochs"].items()}
    for counters in epochs.values():
        counters.update(dict.fromkeys(counters, counters["processed"]))
    trainer.fit_loop.epoch_progress.load_state_dict(epochs)


def capture_logged(trainer: Any) -> dict[str, Any]:
    """Return what `self.log` has collected: the metrics of the epoch so far, and those that callbacks see."""
    connector = trainer._logger_connector
    results = trainer.fit_loop.epoch_loop._results
    return {
        "metrics": {name: encode(dict(getattr(connector, name)), name) for name in _LOGGED},
        "first": connector._first_loop_iter,
        "hook": connector._current_fx,
        "results": {key: _capture_result(metric) for key, metric in results.items()},
    }


def restore_logged(trainer: Any, saved: dict[str, Any]) -> None:
    """Set what `capture_logged` returned."""
    connector = trainer._logger_connector
    device = trainer.strategy.root_device
    for name, values in saved["metrics"].items():
        setattr(connector, name, {key: _to(value, device) for key, value in decode(values).items()})
    results = trainer.fit_loop.epoch_loop._results
    results.clear()
    for key, one in saved["results"].items():
        _restore_result(trainer, results, key, one)
    connector._first_loop_iter = saved["first"]
    connector._current_fx = saved["hook"]


def _capture_result(metric: Any) -> dict[str, Any]:
    """The state of one name that was logged; a metric of the module's own is named, since it is saved with it."""
    state = {name: getattr(metric, name, None) for name in _OF_RESULT}
    if metric.is_tensor:
        state |= {name: getattr(metric, name) for name in _OF_MEAN if hasattr(metric, name)}
    settings = {name: getattr(metric.meta, name) for name in _METADATA}
    settings |= {"reduce_fx": metric.meta.reduce_fx.__name__, "rank_zero_only": metric.meta.sync.rank_zero_only}
    return {
        "settings": settings,
        "is_tensor": metric.is_tensor,
        "state": encode(state, metric.meta.name),
    }


def _restore_result(trainer: Any, results: Any, key: str, saved: dict[str, Any]) -> None:
    settings = dict(saved["settings"])
    device = trainer.strategy.root_device
    value = (
        torch.zeros((), device=device)
        if saved["is_tensor"]
        else attrgetter(settings["metric_attribute"])(trainer.lightning_module)
    )
    # The call by which `self.log` makes the entry; then its state is that of the checkpoint.
    names = [settings.pop("fx"), settings.pop("name")]
    results.log(*names, value, batch_size=1, sync_dist_fn=trainer.strategy.reduce, **settings)
    for name, one in decode(saved["state"]).items():
        setattr(results[key], name, _to(one, device))


def _to(value: Any, device: Any) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value
