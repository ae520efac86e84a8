"""`resumable`: a loop of the user's own over batches becomes a run, in three lines.

    run = haversack.resumable(loader, name="digits", model=model, optimizer=optimizer)
    for epoch in run.epochs(10):
        for x, y in run:
            ...

It is for loops over a PyTorch `DataLoader`, and over any other iterable with the state of JAX or numpy. `loop` has the
loop itself; this module opens it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from haversack import place
from haversack.training import batches, facts, location
from haversack.training.batches import Batches
from haversack.training.checkpoints import snapshot
from haversack.training.checkpoints.checkpoints import Checkpoints
from haversack.training.console import print_line
from haversack.training.lightning.package import package_of
from haversack.training.loops import parts
from haversack.training.loops.loop import ResumableLoop, SavedLoop, close_open
from haversack.training.loops.plain import PlainLoop
from haversack.training.loops.state import HeldState
from haversack.training.machine import of_machine
from haversack.training.owned_run import rename_old_run
from haversack.training.part import Part, capture_all


def resumable(
    source: Iterable[Any],
    *,
    name: str,
    model: Any = None,
    optimizer: Any = None,
    scheduler: Any = None,
    scaler: Any = None,
    state: Any = None,
    where: str | Path | None = None,
    restart: bool = False,
    take_over: bool = False,
    **others: Any,
) -> Any:
    """Return the batches of `source` as a run, which is saved while a loop trains on them and resumes inside the epoch.

    Of a Lightning `Trainer`, return the trainer: each `fit` of it is then a run, and what a `fit` trains need not be
    given. See `haversack.training.lightning.fit`.

    Iterate over the result in place of `source`, inside `for epoch in run.epochs(count):`. The run is saved between two
    batches, at most every 2 s. Whatever ends the session (SIGKILL included), the same code in the next session goes on
    after the last batch that was saved, and ends with the same bits as a training that was never interrupted.

    Args:
        source: a `DataLoader` or any other iterable of batches. Each iteration over it must give the same batches if
            the random streams of Python, numpy and PyTorch are the same. An iterator is read again from its beginning.
        name: the run's name.
        model, optimizer, scheduler, scaler: what the loop trains, as far as it has it. The parameters of an optimizer
            are matched by their order.
        state: a pytree that the training step returns anew, as in JAX: read and assign `run.state` in the loop.
        where: where the run's checkpoints are kept; see `haversack.Checkpoints`. By default this machine's data folder;
            if this machine's disk is lost with its session and a hub is configured, also that hub's drive.
        restart: rename the existing run to `NAME.before-N` and train from the beginning; in a job, once.
        take_over: take the run from a session that seems to be alive, which can then save no more.
        others: more to be saved and restored in place: objects with `state_dict` and `load_state_dict` (a moving
            average, a metric), random generators, numpy arrays, lists and dicts of plain values. Moving the others in
            the code renames them.

    Several processes that train together (`torch.distributed`, `jax.distributed`) train without checkpoints, and a
    printed line says so.

    Raises:
        InputError: `name` is not a folder's name, `source` is no iterable, or an object cannot be saved and restored.
        TrainingError: the run began with another source, or with other objects or settings of them.
        RunTaken: `restart` is given, and another session owns the run and seems alive; else the first epoch raises it.
        IntegrityError: the run has checkpoints, but none is intact.
        DiskFull: this machine's disk has no room to resume the run.
        ConnectionFailed: the store does not answer, and this machine has no checkpoint.
    """
    if package_of(source) is not None:
        from haversack.training.lightning.fit import resumable_trainer

        return resumable_trainer(source, name, where, restart=restart, take_over=take_over)
    framework = parts.framework_of([model, optimizer, scheduler, scaler, *others.values(), state, source])
    if (count := _process_count(framework)) > 1:
        print_line(f"{name}: trained without checkpoints: {count} processes train together, and each would save a part")
        return PlainLoop(source, state)
    objects = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler, **others}
    held = HeldState(state)
    found = parts.of_objects(objects)
    begin_batch = lambda: None  # noqa: E731
    if (pending := parts.pending_gradients(objects)) is not None:
        found["gradients"] = pending.part()
        begin_batch = pending.begin_batch
    if state is not None:
        found["state"] = held.part()
    snapshot.forms(capture_all(found))  # raises `InputError` now for what no save could hold
    opened = _open_source(source)
    where, notice = location.resolve(name, where)
    if notice:
        print_line(notice)
    close_open(location.local_folder(where) / name)
    restarted_by = place.job() if restart else ""
    if restart:
        rename_old_run(name, where, take_over, restarted_by)
    checkpoints = Checkpoints(name, where, take_over=take_over)
    if take_over:
        checkpoints.claim()  # before the restore, so that the owner until now commits nothing after it
    saved = SavedLoop.of(checkpoints.restore())
    now = _facts(framework, opened, found)
    if saved is not None:
        if (error := facts.refusal(name, saved.facts, now)) is not None:
            raise error
        facts.report_changes(name, saved.facts, now)
        restarted_by = restarted_by or saved.facts.get("restarted by", "")
    now["restarted by"] = restarted_by
    return ResumableLoop(opened, found, parts.global_streams(), held, checkpoints, saved, now, begin_batch)


def _open_source(source: Iterable[Any]) -> Batches:
    """The batches of a source: those of a `DataLoader`, or of any other iterable."""
    if "torch" in sys.modules:
        from torch.utils.data import DataLoader

        if isinstance(source, DataLoader):
            from haversack.training.torch.loader import of_loader

            return of_loader(source)
    return batches.of_iterable(source)


def _facts(framework: str, opened: Batches, found: Mapping[str, Part]) -> dict[str, Any]:
    """The facts of a checkpoint: "data" and "parts" must not change in a run; the others decide the last digits."""
    return {
        "framework": framework,
        "data": dict(opened.facts),
        "parts": {name: part.kind for name, part in found.items()},
        "settings": dict(opened.settings),
        "machine": of_machine(framework),
    }


def _process_count(framework: str) -> int:
    """The number of processes that train together, by `torch.distributed` or JAX."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        return int(torch.distributed.get_world_size())
    return int(sys.modules["jax"].process_count()) if framework == "jax" else 1
