"""One `Trainer.fit` that trains a run: it restores the state where it was saved, saves it between batches, and reports.

The point between two batches is the call by which Lightning asks for the next one (`loader`). There the state is saved.
A session that resumes lets Lightning begin the fit as always, with the epoch that was saved; at its first batch it
replays the data to where it was and puts every other state back. So hooks before the first batch see a new model, and
all from then on see what they would have seen without the interruption.

A run that is finished is loaded at the end of a fit that trains nothing. Its last state is read after the hooks at the
end of a training, which may change the model: moving averages replace weights there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from haversack.errors import InputError, TrainingError
from haversack.training import facts
from haversack.training.batches import length
from haversack.training.checkpoints import snapshot
from haversack.training.checkpoints.checkpoints import Checkpoints, Restored
from haversack.training.console import print_line
from haversack.training.interrupts import Interrupts
from haversack.training.lightning import progress
from haversack.training.lightning.loader import global_streams
from haversack.training.lightning.package import version
from haversack.training.lightning.state import TrainerState
from haversack.training.machine import of_machine
from haversack.training.owned_run import Captured, OwnedRun, Position
from haversack.training.part import restore_all
from haversack.training.rhythm import Rhythm

RHYTHM = Rhythm()
"""When Lightning's trainings save."""
_SETTINGS = (
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "precision",
    "limit_val_batches",
)


@dataclass(frozen=True)
class SavedFit:
    """What a checkpoint of a Lightning training holds.

    Attributes:
        position: how far the run was.
        trained: seconds of training in all sessions.
        ended: whether the fit had come to its end.
        epochs, steps: the limits of that fit; -1 for none.
        tree: the whole tree, with the state.
        facts: the facts of the checkpoint.
    """

    position: Position
    trained: float
    ended: bool
    epochs: int
    steps: int
    tree: dict[str, Any]
    facts: dict[str, Any]

    @classmethod
    def of(cls, restored: Restored | None) -> SavedFit | None:
        """Parse the result of `Checkpoints.restore`; raises `TrainingError` if it is not of Lightning."""
        if restored is None:
            return None
        tree = restored.tree
        if not isinstance(tree, dict) or "lightning" not in tree:
            raise TrainingError(
                f"The checkpoints in {restored.checkpoint.where} are not those of a Lightning training.",
                "Give this training another name.",
            )
        return cls(position=Position(*tree["position"]), tree=tree, facts=dict(restored.facts), **tree["lightning"])

    def is_finished(self, epochs: int, steps: int) -> bool:
        """Whether a fit with these limits has nothing left to do."""
        if self.ended:
            return _limit(epochs) <= _limit(self.epochs) and _limit(steps) <= _limit(self.steps)
        return self.position.epoch >= _limit(epochs)


class FitSession:
    """The session of one fit. `fit` calls `close`; the callback and the loader call everything else, in this order.

    ==============  ===================================================================================
    state           what it means
    ==============  ===================================================================================
    opened          the checkpoints are read; nothing is claimed or restored
    plain           the fit is trained without checkpoints, and a line said why
    loading         the run is finished: Lightning trains nothing, and the state is put in place at the end
    training        the run is claimed and its session logged
    ended           the last state is saved, or an error or signal ended the fit
    ==============  ===================================================================================

    The thread that fits is the only one that uses the object. Fields:

    ================  ====================  ===============================================================
    field             type                  meaning
    ================  ====================  ===============================================================
    _trainer          Trainer               Lightning's
    _package          str                   the package that it is of
    _interrupts       Interrupts            holds signals while batches are trained on
    _run              OwnedRun              saves, log, position
    _facts            dict                  the facts of the checkpoints
    _saved            SavedFit or None      what is to be restored; None once it is
    _is_strict        bool                  whether what does not fit the run is an error, not a plain training
    _state            TrainerState or None  the objects; None before the fit has its optimizers
    _is_plain         bool                  state plain
    _is_loading       bool                  state loading
    _is_training      bool                  state training
    _loader           SavingLoader or None  the training batches, once Lightning has opened them
    _is_recorded      bool                  whether the attributes before the first batch are known
    _is_refetching    bool                  the batch that was drawn ahead is drawn again
    _between_only     bool                  whether the run is saved between epochs only
    _logged           int                   epochs that are logged
    _limits           tuple                 `limit_train_batches` and `num_sanity_val_steps`, while loading
    ================  ====================  ===============================================================
    """

    def __init__(
        self,
        trainer: Any,
        package: str,
        checkpoints: Checkpoints,
        saved: SavedFit | None,
        *,
        restarted_by: str,
        strict: bool,
    ) -> None:
        self._trainer = trainer
        self._package = package
        self._interrupts = Interrupts()
        self._facts: dict[str, Any] = {"framework": "lightning", "restarted by": restarted_by}
        self._saved = saved
        self._is_strict = strict
        self._run = OwnedRun(
            checkpoints,
            self._interrupts,
            self._capture,
            facts=self._facts,
            rhythm=RHYTHM,
            framework="lightning",
            resumed_at=saved.position if saved else None,
            trained=saved.trained if saved else 0.0,
        )
        self._state: TrainerState | None = None
        self._loader: Any = None
        self._is_plain = False
        self._is_loading = False
        self._is_training = False
        self._is_refetching = False
        self._is_recorded = False
        self._between_only = False
        self._logged = saved.position.epoch if saved else 0
        self._limits: tuple[Any, Any] = (None, None)

    @property
    def resumes(self) -> bool:
        """Whether there is a state of an earlier session."""
        return self._saved is not None

    # Called by the callback, in this order

    def fit_starts(self, model: Any) -> None:
        """The fit has its optimizers. Load a finished run; else give callbacks their state of the session before."""
        trainer = self._trainer
        self._state = TrainerState(trainer, model, self._package)
        if self._saved is None:
            return
        self._check_facts()
        if self._is_plain:
            return
        if self._saved.is_finished(trainer.max_epochs, trainer.max_steps):
            self._load_instead_of_training()
        else:
            self._state.restore_callbacks(self._saved.tree["state"])

    def train_starts(self) -> None:
        """The training begins: compare its data with the run's, claim the run, and begin with the right epoch."""
        if self._is_plain or self._state is None or self._loader is None:
            return
        trainer, replay = self._trainer, self._loader.replay
        replay.watch(trainer.val_dataloaders)
        self._check_data()
        if self._is_plain:
            return
        self._run.checkpoints.claim()
        self._is_training = True
        self._run.begin(max(0, trainer.max_epochs or 0), length(self._loader))
        self._interrupts.__enter__()
        self._check_cycles()
        if self._saved is not None:
            self._report_loggers()
            if self._saved.ended:
                self._record()
                self._restore(None)
            else:
                progress.begin_at(trainer, self._saved.tree["state"]["loops"])

    def validation_batch_starts(self) -> None:
        """Deliver a held signal without a save: a validation is repeated from its beginning."""
        if self._is_training and self._run.is_interrupted:
            self._run.interrupt()

    def train_ends(self) -> None:
        """The last epoch is done."""
        if self._is_training:
            self._log_epoch()
            self._interrupts.__exit__(None, None, None)

    def fit_ends(self) -> None:
        """Save the last state or, of a run that was finished before, put it in place."""
        if self._is_loading:
            trainer = self._trainer
            trainer.limit_train_batches, trainer.num_sanity_val_steps = self._limits
            self._record()
            self._restore(None)
        elif self._is_training:
            self._reach(step=0)
            self._run.save_last()

    def fails(self, error: BaseException) -> None:
        """An exception leaves the fit."""
        self._interrupts.__exit__(type(error), error, None)
        if self._is_loading:
            self._trainer.limit_train_batches, self._trainer.num_sanity_val_steps = self._limits

    # Called by the loader

    def pass_begins(self, loader: Any) -> None:
        """A pass over the training data is opened."""
        self._loader = loader
        self._is_refetching = False
        loader.replay.open()

    def before_batch(self, loader: Any) -> None:
        """The step of the last batch is done: save if a save is due, or restore if the session resumes here."""
        if self._is_plain or self._state is None:
            return
        if self._saved is not None:
            # What Lightning draws ahead before the training begins belongs to an epoch that is done.
            if self._is_training or self._saved.position.epoch == 0:
                self._resume(self._saved)
        elif self._is_training:
            self._record()
            self._reach_save_point()
            self._state.begin_batch()

    def _record(self) -> None:
        if not self._is_recorded:
            self._is_recorded = True
            assert self._state is not None
            self._state.record(self._loader.flattened if self._loader is not None else [])

    # Resuming

    def _resume(self, saved: SavedFit) -> None:
        """Get to the batch at which the run was saved, and put everything back as it was."""
        assert self._state is not None
        source, loader = saved.tree["source"], self._loader
        if not self._is_refetching:
            if not loader.replay.restore(source, loader.reopen, loader.fetch):
                print_line(
                    f"{self._run.name}: the data yields other batches than in the session before, so the run goes on, "
                    "but not exactly; seed what shuffles or changes them"
                )
            if source["last"]:
                loader.replay.restore_last(source)
                self._is_refetching = True
                return
        self._is_refetching = False
        self._record()
        self._restore(source["drawn"])
        self._state.begin_batch()

    def _restore(self, steps: int | None) -> None:
        assert self._saved is not None
        assert self._state is not None
        for line in self._state.restore(self._saved.tree["state"], steps):
            print_line(f"{self._run.name}: {line}")
        known = self._loader.replay.streams if self._loader is not None else global_streams()
        restore_all(known, self._saved.tree["source"]["generators"])
        self._saved = None

    def _load_instead_of_training(self) -> None:
        """Let Lightning train and check nothing: a limit of 0 batches leaves out the training."""
        trainer = self._trainer
        assert self._saved is not None
        done = f"has {self._saved.position.epoch} epochs already" if not self._saved.ended else "finished before"
        print_line(f"{self._run.name}: {done}; its state is loaded")
        self._is_loading = True
        self._limits = (trainer.limit_train_batches, trainer.num_sanity_val_steps)
        trainer.limit_train_batches, trainer.num_sanity_val_steps = 0, 0

    # Saving

    @property
    def _epoch(self) -> int:
        return int(self._trainer.fit_loop.epoch_progress.current.processed)

    def _reach(self, step: int | None = None) -> None:
        batches = self._trainer.fit_loop.epoch_loop.batch_progress
        self._run.reach(Position(self._epoch, batches.current.ready if step is None else step, batches.total.ready))

    def _reach_save_point(self) -> None:
        self._reach()
        self._log_epoch()
        self._run.beat()
        if not self._between_only or self._run.position.step == 0:
            self._run.save_if_due()
        elif self._run.is_interrupted:
            self._run.interrupt()

    def _capture(self, ended: bool) -> Captured:
        assert self._state is not None
        assert self._loader is not None
        at, trainer = self._run.position, self._trainer
        tree = {
            "lightning": {
                "trained": self._run.trained,
                "ended": ended,
                "epochs": _plain(trainer.max_epochs),
                "steps": _plain(trainer.max_steps),
            },
            "position": [at.epoch, at.step, at.total],
            "state": self._state.capture(),
            "source": self._loader.replay.capture(),
        }
        return Captured(tree, broken="" if self._state.is_finite() else "model: NaN or infinity among the numbers")

    def _log_epoch(self) -> None:
        """Log the results of an epoch that has ended since the last call."""
        if self._epoch > self._logged:
            values = {name: float(value) for name, value in self._trainer.callback_metrics.items() if _is_scalar(value)}
            self._run.log.write("epoch", epoch=self._epoch - 1, logs=values)
            self._logged = self._epoch

    # Comparing and reporting

    def _check_facts(self) -> None:
        """Compare the objects and the machine with those of the run."""
        assert self._state is not None
        assert self._saved is not None
        before = self._saved.facts
        self._facts |= self._facts_of_trainer() | {"data": before["data"], "settings": before["settings"]}
        if self._is_refused():
            return
        facts.report_changes(self._run.name, before, self._facts)
        if changed := facts.differences(before["trainer"], self._facts["trainer"]):
            print_line(f"{self._run.name}: {'; '.join(changed)}, as the code says now")

    def _check_data(self) -> None:
        """Compare the data with that of the run, and see that the state can be saved."""
        replay = self._loader.replay
        if replay.is_single_pass:
            return self._train_plainly(
                "the training data is an iterator, which has a single pass; give a DataLoader or another iterable"
            )
        self._facts |= self._facts_of_trainer() | {"data": replay.facts(), "settings": replay.settings()}
        if self._saved is not None:
            if self._is_refused():
                return None
            known = {"machine": self._facts["machine"]}
            facts.report_changes(self._run.name, self._saved.facts | known, self._facts)
        try:
            snapshot.forms(self._capture(False).tree)
        except InputError as error:
            self._train_plainly(f"{error.what} {error.next_step}")

    def _facts_of_trainer(self) -> dict[str, Any]:
        assert self._state is not None
        return {
            "parts": self._state.facts(),
            "machine": of_machine("torch") | {"lightning": version(self._package)},
            "trainer": {name: str(getattr(self._trainer, name, None)) for name in _SETTINGS},
        }

    def _is_refused(self) -> bool:
        """Whether model or data are others than the run's: an error or, in a plain notebook, no checkpoints."""
        assert self._saved is not None
        error = facts.refusal(self._run.name, self._saved.facts, self._facts)
        if error is not None and self._is_strict:
            raise error
        if error is not None:
            self._train_plainly(error.what)
        return error is not None

    def _check_cycles(self) -> None:
        if self._loader.replay.cycles:
            self._between_only = True
            print_line(
                f"{self._run.name}: saved between epochs only, because loaders of different lengths are combined and "
                'the shorter ones begin anew inside an epoch; CombinedLoader(…, "min_size") is saved inside epochs too'
            )

    def _report_loggers(self) -> None:
        """Tell what loggers hold twice: the steps that the session before logged after its last checkpoint."""
        names = ", ".join(type(one).__name__ for one in self._trainer.loggers)
        if names and self._saved is not None:
            folder = f", this one to {self._trainer.log_dir}" if self._trainer.log_dir else ""
            print_line(
                f"{self._run.name}: {names}: what the session before logged after step {self._saved.position.total} is "
                f"logged again{folder}"
            )

    def _train_plainly(self, reason: str) -> None:
        self._is_plain = True
        self._saved = None
        print_line(f"{self._run.name}: trained without checkpoints: {reason}")

    # Called by `fit`

    def close(self, error: BaseException | None) -> None:
        """End the session and release the run; `error` is what left the fit."""
        if self._is_training:
            if error is None and self._run.is_broken:
                self._run.end("failed")
            elif error is None:
                self._run.end("finished", self._digest())
            elif not isinstance(error, (KeyboardInterrupt, SystemExit)):
                self._run.end("failed")
            self._run.close(succeeded=error is None)
        else:
            self._run.checkpoints.close()

    def _digest(self) -> str:
        assert self._state is not None
        try:
            return snapshot.digest(self._state.digest_tree())
        except InputError:
            return ""


def _limit(value: int | None) -> float:
    return math.inf if value is None or value < 0 else value


def _plain(value: int | None) -> int:
    return -1 if value is None else int(value)


def _is_scalar(value: Any) -> bool:
    return not hasattr(value, "numel") or value.numel() == 1
