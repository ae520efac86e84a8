"""One training session of a run: it restores the state before its first step, saves it while training, and reports.

`model.fit` calls its callbacks through a `CallbackList`, the one place that everything passes in order.
`TrainingSession` is such a list. It saves between two steps, before any callback sees the next step. A run that was
interrupted in the middle of an epoch resumes inside that epoch: Keras iterates over all steps of the epoch, and the
session skips those that are done. A skipped step reads no batch, computes nothing and calls no callback. So batch
numbers, the length of the epoch and the progress bar are those of a run that was never interrupted.

The state is restored at the point where it was saved. Inside an epoch that is after the callbacks' `on_epoch_begin`:
a schedule that multiplies the learning rate in every `on_epoch_begin` must not do so twice. At the first step of an
epoch it is before `on_epoch_begin`. The last state is saved before `fit` ends, because the end of `fit` changes the
model: moving averages replace weights, and EarlyStopping restores the best ones. A finished run that is loaded again
goes through the same end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from haversack.errors import TrainingError
from haversack.training.checkpoints import snapshot
from haversack.training.checkpoints.checkpoints import Checkpoints, Restored
from haversack.training.console import print_line
from haversack.training.interrupts import Interrupts
from haversack.training.keras import dependencies, fingerprint, log_files, state, untracked
from haversack.training.keras.attributes import AttributeState, decode, encode
from haversack.training.keras.data import Source
from haversack.training.keras.divergence import Divergence
from haversack.training.keras.progress_bar import ProgressBar
from haversack.training.keras.recompiled import Recompilation
from haversack.training.owned_run import Captured, OwnedRun, Position
from haversack.training.rhythm import Rhythm

RHYTHM = Rhythm()
"""When the trainings of `haversack.fit` save."""
_BEGAN_WITH = {
    "data": "other data",
    "model": "another model",
    "compilation": "another compilation",
    "code": "other code",
}


@dataclass(frozen=True)
class SavedTraining:
    """What a checkpoint of `fit` holds.

    Attributes:
        position: how far the run was.
        trained: seconds of training in all sessions.
        asked: `epochs` as given to the `fit` that saved it.
        ended: whether the training was over: the last epoch was done, or a callback had stopped it.
        seed: the seed of the data's order.
        tree: the whole tree of the checkpoint, with the model's variables; `trained` to `seed` are in its dict "fit".
        facts: the facts of the checkpoint: the fingerprints "data", "model" and "machine", those of `dependencies`, in
            "restarted by" which call of a job restarted the run, and in "diverged" the epoch and step, from 0, at
            which a weight was first found to be NaN or infinite.
    """

    position: Position
    trained: float
    asked: int
    ended: bool
    seed: int
    tree: dict[str, Any]
    facts: dict[str, Any]

    @classmethod
    def of(cls, restored: Restored | None) -> SavedTraining | None:
        """Parse the result of `Checkpoints.restore`; None for None.

        Raises `TrainingError` if the checkpoint was not saved by `haversack.fit`.
        """
        if restored is None:
            return None
        tree = restored.tree
        if "fit" not in tree:
            raise TrainingError(
                f"The checkpoints in {restored.checkpoint.where} are not those of haversack.fit.",
                "Give this training another name.",
            )
        return cls(position=Position(*tree["position"]), tree=tree, facts=dict(restored.facts), **tree["fit"])

    def is_finished(self, epochs: int) -> bool:
        """Whether a `fit` with this argument `epochs` has nothing left to do: so many epochs are done.

        A training that a callback stopped early counts as finished unless `epochs` exceeds that of the earlier `fit`.
        """
        return epochs <= self.position.epoch or (self.ended and epochs <= self.asked)


class TrainingSession(keras.callbacks.CallbackList):  # type: ignore[misc]
    """The callbacks of one `model.fit` that trains a run.

    A session moves its run between these states. The log is the run's `log.jsonl`; the owner is recorded in the chain
    of manifests that `Checkpoints` keeps.

    ===========  ===============  =========================================================================
    state        owner            how it is recorded
    ===========  ===============  =========================================================================
    new          nobody           there is no checkpoint
    claimed      this session     the chain ends in a claim or checkpoint of this process
    training     this session     the log has a "begin" event of this process and no "end" after it
    saving       this session     as training; the writer thread of `Checkpoints` is writing a checkpoint
    interrupted  nobody           the log has an "end" event with outcome "interrupted"; if the signal ended the
                                  process during validation, the owner is a dead process
    failed       nobody           the log has an "end" event with outcome "failed"
    finished     nobody           the newest checkpoint has `ended`; "end" event with outcome "finished"
    killed       a dead process   the log has a "begin" event without "end", and the owner does not run
    lost         another session  the chain has a newer claim of another session
    ===========  ===============  =========================================================================

    ====================================  =====================================================================
    transition                            cause
    ====================================  =====================================================================
    new → claimed                         `fit` claims the run; `RunTaken` if another session seems alive
    interrupted/failed/killed → claimed   the same, after `fit` restored the newest intact checkpoint
    finished → claimed                    the same, if `epochs` has grown
    finished → finished                   otherwise: `fit` loads weights and history, and claims nothing
    claimed → training                    `on_train_begin`: the model is the run's
    claimed → failed                      `on_train_begin` raises, for example because the model has changed
    training → saving                     a save is due, a signal is held, or the training is over
    saving → training                     the checkpoint is committed, or its write fails: the next save
                                          prints the error, and the one after it retries
    training → interrupted                SIGINT or SIGTERM was held: at the next step the session saves,
                                          releases the run and delivers the signal; during validation it
                                          delivers the signal without a save
    interrupted → training                the signal's handler returned: the next save claims the run again
    training → finished                   the last epoch ended, or a callback stopped the training
    training → failed                     an exception left `model.fit`
    every state with this owner → killed  SIGKILL, a crash or a power cut; the next session's "begin" event
                                          tells the report that this one was killed
    claimed, training, saving → lost      another session took the run over: the next save, or `close`, raises
                                          `RunLost`, and this session can commit nothing more
    every state → new                     `fit(restart=True)` claims the run and renames it; `RunTaken` as above
    ====================================  =====================================================================

    Fields. The session is the owner of all fields, and the thread that calls `fit` is the only one that assigns them.
    No lock guards them. With asynchronous dispatch (`_async_train`), Keras's worker threads run the callbacks' batch
    methods, and the progress bar's calls `OwnedRun.next_save_text`. `_capture` waits for these threads before it reads
    the callbacks' attributes.

    ======================  ============================  ==========================================================
    field                   type                          meaning
    ======================  ============================  ==========================================================
    _trained_model          keras.Model                   the model
    _source                 Source                        the batches; the session seeks it at each epoch
    _run                    OwnedRun                      the run: its saves, its log, its position and its end
    _facts                  dict                          recorded in checkpoints; `fit` and `on_train_begin` fill it
    _saved                  SavedTraining or None         what the session resumes from; `_restore` empties its tree
    _changes                CodeChanges                   what the code says otherwise than the session before
    _epochs                 int                           `epochs`, as given to `fit`
    _attributes             AttributeState                attributes of the callbacks and of the data set
    _stateful               list                          the callbacks and the data set
    _recompilation          Recompilation                 layers frozen and optimizers replaced since the begin
    _steps_before_epoch     int                           batches done in all epochs before the current one
    _steps_done             int                           batches done in the current epoch
    _last_logs              dict                          results of the last epoch that ended
    _divergence             Divergence                    whether weights or loss are NaN or infinite
    _train_function         compiled function or None     Keras's train function while steps are skipped, else None
    _architecture           uint8 array or None           the model's configuration as JSON
    _in_first_epoch         bool                          True until the first `on_epoch_begin` has returned
    ======================  ============================  ==========================================================
    """

    def __init__(
        self,
        model: keras.Model,
        source: Source,
        callbacks: list[Any],
        checkpoints: Checkpoints,
        *,
        facts: dict[str, Any],
        saved: SavedTraining | None,
        interrupts: Interrupts,
        epochs: int,
        steps: int | None,
        verbose: Any,
    ) -> None:
        """`steps` is `steps_per_epoch`; the other options are those of `fit`. `interrupts` must be entered."""
        params = {"verbose": verbose, "epochs": epochs, "steps": steps or source.num_batches}
        super().__init__(callbacks, add_history=True, **params)
        self._run = OwnedRun(
            checkpoints,
            interrupts,
            self._capture,
            facts=facts,
            rhythm=RHYTHM,
            resumed_at=saved.position if saved else None,
            trained=saved.trained if saved else 0.0,
        )
        if verbose != 0 and not any(isinstance(one, keras.callbacks.ProgbarLogger) for one in self.callbacks):
            self.callbacks.append(ProgressBar(self._run.next_save_text))
            self.callbacks[-1].set_params(params)
        self._trained_model = model
        self._source = source
        self._facts = facts
        self._saved = saved
        self._changes = changes(saved, facts)
        self._epochs = epochs
        self._stateful = [*self.callbacks, *source.stateful_objects]
        self._attributes = AttributeState(self._stateful)
        self._recompilation = Recompilation(model)
        self._steps_before_epoch = self._position.total - self._position.step
        self._steps_done = self._position.step
        self._last_logs: dict[str, Any] = decode(saved.tree["logs of last epoch"]) if saved else {}
        self._train_function: Any = None
        self._architecture: np.ndarray[Any, Any] | None = None
        self._in_first_epoch = True
        self._divergence = Divergence(model, facts, self._say)

    @property
    def _position(self) -> Position:
        return self._run.position

    # Called by Keras, in this order

    def on_train_begin(self, logs: Any = None) -> None:
        """Compare the model with the run's, truncate the callbacks' log files and start the callbacks.

        Then log and print the begin of the session or, for a run that is finished, load its state. Raises
        `TrainingError` if the model differs from the run's.
        """
        self._facts["model"] = fingerprint.of_model(self._trained_model)
        self._facts["rate"] = dependencies.of_rate(self._trained_model.optimizer)  # its variable has its place now
        self._facts["code"] = dependencies.of_code(self._trained_model, next(iter(self._source.stateful_objects), None))
        self._architecture = state.architecture(self._trained_model)
        if self._saved is None:
            before = self._run.log.files_before() or log_files.lengths(self.callbacks)
            self._run.log.write("files", before=before)
            with log_files.truncated(self.callbacks, before, first_start=True):
                self._start_callbacks(logs)
        else:
            for what in ("model", "code"):
                check_unchanged(self._run.name, what, self._saved.facts, self._facts)
            with log_files.truncated(self.callbacks, self._saved.tree["logs"]):
                self._start_callbacks(logs)
        state.unshare(self._trained_model)
        self._attributes.record_initial()
        if self._saved is None or not self._saved.is_finished(self._epochs):
            self._report_begin()
        else:
            self._restore(self._saved)
            if str(self._changes):
                print_line(f"{self._run.name}: {self._changes}, to no effect: no epoch is left to train")

    def _start_callbacks(self, logs: Any) -> None:
        """Give the callbacks their model and begin the training; they open their files in either call."""
        self.set_model(self._trained_model)
        super().on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Set the data to the epoch and call the callbacks; before that, save if a save is due or a signal is held.

        In the epoch in which the session resumes, restore the state instead of saving: before the callbacks if it
        resumes at the epoch's first step, else after them. Raises `RunTaken` and `RunLost` if the save does.
        """
        step = self._position.step if self._in_first_epoch else 0
        self._run.reach(Position(epoch, step, self._steps_before_epoch + step))
        self._source.seek(epoch, step)
        if not (self._in_first_epoch and self._saved):
            self._run.save_if_due()
            self._begin_epoch(epoch, logs)
        elif step == 0:
            self._restore(self._saved)
            self._trained_model.reset_metrics()
            self._begin_epoch(epoch, logs)
        else:
            self._begin_epoch(epoch, logs)
            self._restore(self._saved)
            self._start_skipping()
        self._in_first_epoch = False

    def _begin_epoch(self, epoch: int, logs: Any) -> None:
        """Call the callbacks, one of which may compile the model again."""
        super().on_epoch_begin(epoch, logs)
        self._recompilation.complete()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Write the run's pulse, save if a save is due or a signal is held, and call the callbacks.

        Does nothing in a step that an earlier session did, which is skipped. Raises `RunTaken` and `RunLost` if the
        save does.
        """
        if self._train_function is not None:
            if batch < self._position.step:
                return
            self._stop_skipping()
        if batch >= self._source.plan.length(self._position.epoch):
            return  # Keras asks for one batch more before it finds that the pass over the data has ended
        self._run.reach(Position(self._position.epoch, batch, self._steps_before_epoch + batch))
        self._run.beat()
        self._run.save_if_due()
        super().on_train_batch_begin(batch, logs)
        self._recompilation.complete()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the step and call the callbacks, unless the step was skipped."""
        if self._train_function is None:
            self._steps_done = min(batch + 1, self._source.plan.length(self._position.epoch))
            self._divergence.note(logs)
            super().on_train_batch_end(batch, logs)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Deliver a held signal without a save, since a validation cannot be resumed; then call the callbacks."""
        if self._run.is_interrupted:
            # A validation cannot be resumed, so there is nothing to save: the last checkpoint is the newest state.
            self._run.interrupt()
        super().on_test_batch_begin(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Call the callbacks and log the epoch's results; save if it is the last epoch or a callback stopped training.

        Raises `RunTaken` and `RunLost` if the save does.
        """
        super().on_epoch_end(epoch, logs)
        self._steps_before_epoch += self._steps_done
        self._run.reach(Position(epoch + 1, 0, self._steps_before_epoch))
        self._last_logs = dict(logs or {})
        # The history also has what callbacks add, such as the learning rate.
        latest = {name: values[-1] for name, values in self._history.history.items() if values}
        self._run.log.write("epoch", epoch=epoch, logs=_scalars(latest))
        self._divergence.note(logs)
        self._divergence.report_epoch(epoch)
        if self._trained_model.stop_training or epoch + 1 >= self._epochs:
            self._run.save_last()

    def on_train_end(self, logs: Any = None) -> None:
        """End the callbacks, and log the outcome "finished" unless the run was finished before this session."""
        super().on_train_end(logs or self._last_logs)
        if not (self._saved and self._saved.is_finished(self._epochs)):
            self._run.end("finished", self._digest())

    # Called by `fit`

    def close(self, failure: str) -> None:
        """End the session and release the run.

        `failure` is "", or the outcome "failed" or "interrupted" if `model.fit` raised; it is logged, and the log files
        of the callbacks are closed. After a training that succeeded, this waits for the store, as `OwnedRun.close`
        does; it then raises `RunLost` if another session took the run over.
        """
        self._stop_skipping()
        dependencies.remember_rate(self._trained_model.optimizer, self._facts["rate"])
        if failure:
            log_files.close(self.callbacks)
            self._run.end(failure)
        self._run.close(succeeded=not failure)

    # Saving

    def _capture(self, ended: bool) -> Captured:
        """The state between two steps, after the callbacks of the steps before have returned."""
        if self._async_train:
            self._flush_futures()
        diverged = self._divergence.is_to_be_left((self._position.epoch, self._position.step), ended=ended)
        return Captured(self._state_tree(ended), best=self._is_best(), diverged=diverged)

    def _state_tree(self, ended: bool) -> dict[str, Any]:
        """The tree of a checkpoint: everything that `SavedTraining` and `_restore` read."""
        position = self._position
        return {
            "variables": state.values(self._trained_model),
            "architecture": self._architecture,
            "streams": state.streams(),
            "memory": self._attributes.capture(),
            "untracked": untracked.capture(self._trained_model, self._stateful),
            "recompiled": self._recompilation.capture(),
            "logs": log_files.capture(self.callbacks),
            "logs of last epoch": encode(self._last_logs),
            "position": [position.epoch, position.step, position.total],
            "fit": {"trained": self._run.trained, "asked": self._epochs, "ended": ended, "seed": self._source.seed},
        }

    def _is_best(self) -> bool:
        """Whether an epoch has just ended with the smallest `val_loss` so far, or `loss` if nothing is validated."""
        history = self._history.history
        measure = "val_loss" if "val_loss" in history else "loss"
        loss = self._last_logs.get(measure)  # missing after an epoch without validation
        smallest = min((one for one in history.get(measure, []) if not math.isnan(one)), default=math.inf)
        return self._position.step == 0 and loss is not None and float(loss) <= smallest

    # Resuming

    def _restore(self, saved: SavedTraining) -> None:
        """Restore variables, attributes and random streams, and free the saved copy of the model.

        A learning rate that the code has changed since is set again. Raises `TrainingError` for state that cannot be
        restored, by name.
        """
        is_replaced = self._recompilation.restore(saved.tree.get("recompiled"))
        optimizer, variables = self._trained_model.optimizer, saved.tree["variables"]
        given = (saved.facts.get("rate", {}), self._facts["rate"])
        ordered = dependencies.with_rate_of(variables["optimizer_variables"], *given, optimizer)
        state.assign(self._trained_model, {**variables, "optimizer_variables": ordered})
        if self._changes.rate is not None and not (is_replaced or saved.is_finished(self._epochs)):
            dependencies.set_rate(optimizer, self._changes.rate)
        untracked.restore(self._trained_model, self._stateful, saved.tree.get("untracked", []))
        self._attributes.restore(saved.tree["memory"])
        state.restore_streams(saved.tree["streams"])
        saved.tree.clear()

    def _start_skipping(self) -> None:
        """Replace Keras's train function by one that reads no batch and returns the state unchanged."""
        self._train_function = self._trained_model.train_function
        self._trained_model.train_function = lambda values, batches: ({}, values)

    def _stop_skipping(self) -> None:
        """Put Keras's train function back, if steps are being skipped."""
        if self._train_function is not None:
            self._trained_model.train_function, self._train_function = self._train_function, None

    # Reporting

    def _report_begin(self) -> None:
        """Log the begin of the session; if it resumes a run, print where, and what may make the last digits differ."""
        has_sessions = self._run.log.has_sessions
        self._run.begin(self._epochs, self.params["steps"])
        if self._saved is None:
            return
        if not has_sessions:
            self._log_epochs_of_other_machines()
        if str(self._changes):
            print_line(f"{self._run.name}: {self._changes}, as the code says now")
        changed = fingerprint.differences(self._saved.facts["machine"], self._facts["machine"])
        if changed:
            print_line(
                f"{self._run.name}: the order of the data and the random streams are unchanged; the last "
                f"digits may differ, because of {'; '.join(changed)}"
            )

    def _log_epochs_of_other_machines(self) -> None:
        """Log the epochs in the saved history, because the log of the machine that trained them is not here."""
        assert self._saved is not None
        attributes = self._saved.tree["memory"]
        history = next((one["values"] for one in attributes if one["class"] == "History"), None)
        if history is None:
            return
        columns = decode(history["history"])
        for number, epoch in enumerate(decode(history["epoch"])):
            row = {name: column[number] for name, column in columns.items() if number < len(column)}
            self._run.log.write("epoch", epoch=epoch, logs=_scalars(row))

    def _digest(self) -> str:
        """A hash of what the training ends with: all variables, and state that the model does not list."""
        beside = untracked.capture(self._trained_model, self._stateful)
        return snapshot.digest([state.values(self._trained_model), [one["values"] for one in beside]])

    def _say(self, text: str) -> None:
        print_line(f"{self._run.name}: {text}")


def check_unchanged(name: str, what: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise `TrainingError` if what must not change differs between a checkpoint of the run `name` and this session.

    `before` are the facts of the checkpoint, `now` those of this session, and `what` is a key of `_BEGAN_WITH`.
    """
    changed = dependencies.differences(what, before, now)
    if changed:
        raise TrainingError(
            f"The run {name} began with {_BEGAN_WITH[what]}: {'; '.join(changed)}.",
            "Give this training another name, or begin again with restart=True, which renames the old run.",
        )


def changes(saved: SavedTraining | None, facts: dict[str, Any]) -> dependencies.CodeChanges:
    """Return what the code says otherwise, by the `facts` of this session, than when `saved` was saved."""
    if saved is None:
        return dependencies.CodeChanges()
    return dependencies.changes(saved.facts, facts, saved.tree["variables"]["optimizer_variables"])


def _scalars(logs: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items() if np.ndim(value) == 0}
