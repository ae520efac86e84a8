"""`Trainer.fit` as a run: by `haversack.resumable(trainer, name=…)`, or in a job's kernel without a changed line.

    trainer = haversack.resumable(Trainer(max_epochs=10), name="digits")
    trainer.fit(model, loader)

A fit that cannot be resumed exactly is trained by Lightning alone, and a line says why. Lightning's own checkpoints,
loggers and callbacks go on working.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from haversack import place
from haversack.errors import InputError, TrainingError
from haversack.training import location
from haversack.training.checkpoints.checkpoints import Checkpoints
from haversack.training.console import print_line
from haversack.training.lightning import plain, support
from haversack.training.lightning.callback import callback
from haversack.training.lightning.loader import saving_loader
from haversack.training.lightning.package import module, package_of
from haversack.training.lightning.session import FitSession, SavedFit
from haversack.training.owned_run import rename_old_run

_fitting: ContextVar[bool] = ContextVar("fitting with Lightning", default=False)


def is_fitting() -> bool:
    """Whether a run of this module is being trained: a fit inside it is Lightning's own."""
    return _fitting.get()


def resumable_trainer(
    trainer: Any, name: str, where: str | Path | None, *, restart: bool = False, take_over: bool = False
) -> Any:
    """Let each `fit` of `trainer` be a run, and return the trainer: the first is `name`, the next ones `NAME.2`, ….

    The arguments are those of `haversack.resumable`. Raises nothing; `fit` raises `TrainingError` for a model or data
    that are not the run's, `RunTaken`, `RunLost`, and the errors of `Checkpoints.restore`.
    """
    fit = trainer.fit
    count = 0

    @functools.wraps(fit)
    def durable(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        run = name if count == 1 else f"{name}.{count}"
        return durable_fit(
            trainer, fit, arguments, named, name=run, where=where, restart=restart, take_over=take_over, strict=True
        )

    trainer.fit = durable
    return trainer


def durable_fit(
    trainer: Any,
    fit: Callable[..., Any],
    arguments: tuple[Any, ...],
    named: dict[str, Any],
    *,
    name: str,
    where: str | Path | None,
    restart: bool = False,
    take_over: bool = False,
    strict: bool,
) -> Any:
    """Call `fit`, the method of `trainer`, as the run `name`.

    With `strict` a model or data that are not the run's raise `TrainingError`; without, they are trained plainly.
    A fit inside a fit is Lightning's own.
    """
    if is_fitting():
        return fit(*arguments, **named)
    package = package_of(trainer)
    assert package is not None
    try:
        given = dict(inspect.signature(fit).bind(*arguments, **named).arguments)
    except TypeError:
        return fit(*arguments, **named)  # raises the error in Lightning's words
    model = getattr(given.get("model"), "_orig_mod", given.get("model"))  # torch.compile's wrapper
    reason = support.reason_unsupported(package, trainer) or plain.reason(trainer, model, package)
    if reason is not None:
        print_line(f"{name}: trained without checkpoints: {reason}")
        return _fit_plainly(fit, arguments, named)
    try:
        session = _open(trainer, package, name, where, restart, take_over, strict)
    except (TrainingError, InputError) as error:
        if strict:
            raise
        print_line(f"{name}: trained without checkpoints: {error.what}")
        return _fit_plainly(fit, arguments, named)
    if session.resumes and given.get("ckpt_path") is not None:
        print_line(f"{name}: ckpt_path is not loaded, because the run resumes from its own checkpoint")
        given["ckpt_path"] = None
    return _run(trainer, package, fit, given, model, session)


def _fit_plainly(fit: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    token = _fitting.set(True)
    try:
        return fit(*arguments, **named)
    finally:
        _fitting.reset(token)


def _open(
    trainer: Any, package: str, name: str, where: str | Path | None, restart: bool, take_over: bool, strict: bool
) -> FitSession:
    where, notice = location.resolve(name, where)
    if notice:
        print_line(notice)
    restarted_by = place.job() if restart else ""
    if restart:
        rename_old_run(name, where, take_over, restarted_by)
    checkpoints = Checkpoints(name, where, take_over=take_over)
    if take_over:
        checkpoints.claim()  # before the restore, so that the owner until now commits nothing after it
    saved = SavedFit.of(checkpoints.restore())
    if saved is not None:
        restarted_by = restarted_by or saved.facts.get("restarted by", "")
    return FitSession(trainer, package, checkpoints, saved, restarted_by=restarted_by, strict=strict)


def _run(
    trainer: Any, package: str, fit: Callable[..., Any], given: dict[str, Any], model: Any, session: FitSession
) -> Any:
    ours = callback(package, session)
    trainer.callbacks.insert(0, ours)
    failure: BaseException | None = None
    token = _fitting.set(True)
    try:
        with _saving(package, given, model, session):
            return fit(**given)
    except BaseException as error:
        failure = error
        raise
    finally:
        _fitting.reset(token)
        if ours in trainer.callbacks:
            trainer.callbacks.remove(ours)
        session.close(failure)


@contextmanager
def _saving(package: str, given: dict[str, Any], model: Any, session: FitSession) -> Iterator[None]:
    """Let the training data of a fit be a saving loader, whether it is given or a hook returns it."""
    data = given.get("train_dataloaders")
    if data is not None and not isinstance(data, module(package).LightningDataModule):
        given["train_dataloaders"] = saving_loader(package, data, session)
        yield
        return
    owner = data if data is not None else given.get("datamodule") or model
    hook = owner.train_dataloader

    @functools.wraps(hook)
    def train_dataloader(*arguments: Any, **named: Any) -> Any:
        return saving_loader(package, hook(*arguments, **named), session)

    owner.train_dataloader = train_dataloader
    try:
        yield
    finally:
        del owner.__dict__["train_dataloader"]
