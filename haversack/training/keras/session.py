"""One session of a run: what is put back before its first step, saved while it trains, and said about it.

`model.fit` takes its callbacks as a `CallbackList`, the one place through which everything it does passes in order.
`Session` is one that saves between two steps, before any callback hears of the next. A run that stopped in the middle
of an epoch is resumed inside that epoch: Keras walks through its steps as ever, and those that were trained already are
passed over without their batches being read, without a computation, and without a callback hearing of them. Batch
numbers, the length of the epoch and the progress bar are those of a run that never stopped.

The state is put back after the callbacks began the epoch, since they began it before it was saved too: a schedule that
multiplies the learning rate at every beginning must not do it twice. At the first step of an epoch it is the other way
round. After the last epoch the state is saved before `fit` ends, because ending changes the model (moving averages
become weights, EarlyStopping puts the best ones back): a finished run that is opened again ends once more.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from haversack import place
from haversack.errors import ConnectionFailed, HaversackError, RateLimited, RunLost, RunTaken, TrainingError
from haversack.training import clock
from haversack.training.checkpoints.checkpoints import Checkpoints, Restored
from haversack.training.interrupts import Interrupts
from haversack.training.keras import fingerprint, state
from haversack.training.keras import log_files as logs_of_callbacks
from haversack.training.keras.attributes import AttributeState, decode, encode
from haversack.training.keras.data import Source
from haversack.training.keras.progress_bar import ProgressBar
from haversack.training.runs.log import RunLog


@dataclass(frozen=True)
class Rhythm:
    """When to save, in seconds: after `first`, then after `share` times what the last save held up the training,
    but no sooner than `shortest` and no later than `longest`."""

    first: float = 5.0
    share: float = 100.0
    shortest: float = 2.0
    longest: float = 300.0

    def pause(self, cost: float) -> float:
        """How long to wait after a save that cost `cost`."""
        return min(max(self.share * cost, self.shortest), self.longest)


RHYTHM = Rhythm()
# How long before the session's end the last save begins: this share of what was left, and no more than so many seconds.
_SHARE_LEFT, _LONGEST_LEFT = 0.1, 30.0
PATIENCE = 600.0
"""How long a training that is over waits for a store that does not answer, in seconds."""
_ASK_AGAIN = 5.0


@dataclass(frozen=True)
class Position:
    """Where a run has come to: `step` batches of epoch `epoch` (from 0) are done, `total` of all epochs."""

    epoch: int
    step: int
    total: int


@dataclass(frozen=True)
class Saved:
    """What a checkpoint of a run holds: everything but the model's variables, which stay in `tree`.

    `trained` is in seconds of all sessions. `asked` is the number of epochs that was asked for when it was saved,
    `ended` whether the training was over.
    """

    position: Position
    trained: float
    asked: int
    ended: bool
    seed: int
    tree: dict[str, Any]
    facts: dict[str, Any]

    @classmethod
    def of(cls, restored: Restored | None) -> Saved | None:
        if restored is None:
            return None
        tree = restored.tree
        if "fit" not in tree:
            raise TrainingError(
                f"The checkpoints in {restored.checkpoint.where} are not those of haversack.fit.",
                "Give this training another name.",
            )
        return cls(position=Position(*tree["position"]), tree=tree, facts=dict(restored.facts), **tree["fit"])

    def is_all_of(self, epochs: int) -> bool:
        """Whether nothing is left of a training of `epochs`; one that a callback ended early is whole."""
        return self.ended and (epochs <= self.position.epoch or epochs <= self.asked)


class TrainingSession(keras.callbacks.CallbackList):
    """The callbacks of one `model.fit` that is a session of a run."""

    def __init__(
        self,
        model: keras.Model,
        source: Source,
        callbacks: list[Any],
        checkpoints: Checkpoints,
        *,
        facts: dict[str, Any],
        saved: Saved | None,
        interrupts: Interrupts,
        epochs: int,
        steps: int | None,
        verbose: Any,
    ) -> None:
        params = {"verbose": verbose, "epochs": epochs, "steps": steps or source.num_batches}
        super().__init__(callbacks, add_history=True, **params)
        if verbose != 0 and not any(isinstance(one, keras.callbacks.ProgbarLogger) for one in self.callbacks):
            self.callbacks.append(ProgressBar(self._next_save))
            self.callbacks[-1].set_params(params)
        self._trained_model = model
        self._source = source
        self._checkpoints = checkpoints
        self._facts = facts
        self._saved = saved
        self._interrupts = interrupts
        self._epochs = epochs
        self._log = RunLog(checkpoints.folder)
        self._memory = AttributeState([*self.callbacks, *source.remembers])
        self._position = saved.position if saved else Position(0, 0, 0)
        self._before_epoch = self._position.total - self._position.step
        self._done = self._position.step
        self._last_saved = self._position.total if saved else -1
        self._last_logs: dict[str, Any] = decode(saved.tree["logs of last epoch"]) if saved else {}
        self._train_function: Any = None
        self._architecture: np.ndarray[Any, Any] | None = None
        self._trained_before = saved.trained if saved else 0.0
        self._begun = time.monotonic()
        self._last_call = _last_call()
        self._due = min(self._begun + RHYTHM.first, self._last_call)
        self._begins = True

    # What Keras calls, in its order

    def on_train_begin(self, logs: Any = None) -> None:
        self._facts["model"] = fingerprint.of_model(self._trained_model)
        self._architecture = state.architecture(self._trained_model)
        if self._saved is None:
            before = self._log.files_before() or logs_of_callbacks.lengths(self.callbacks)
            self._log.write("files", before=before)
            with logs_of_callbacks.continued(self.callbacks, before, anew=True):
                self._meet_model(logs)
        else:
            check_same(self._checkpoints.name, "model", self._saved.facts, self._facts)
            with logs_of_callbacks.continued(self.callbacks, self._saved.tree["logs"]):
                self._meet_model(logs)
        state.unshare(self._trained_model)
        self._memory.begin()
        if self._saved is None or not self._saved.is_all_of(self._epochs):
            self._tell_begin()
        else:
            self._put_back(self._saved)

    def _meet_model(self, logs: Any) -> None:
        """Callbacks open their files in either call."""
        self.set_model(self._trained_model)
        super().on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        step = self._position.step if self._begins else 0
        self._position = Position(epoch, step, self._before_epoch + step)
        self._source.begin(epoch, step)
        if not (self._begins and self._saved):
            self._save_if_due()
            super().on_epoch_begin(epoch, logs)
        elif step == 0:
            self._put_back(self._saved)
            self._trained_model.reset_metrics()
            super().on_epoch_begin(epoch, logs)
        else:
            super().on_epoch_begin(epoch, logs)
            self._put_back(self._saved)
            self._pass_over_steps()
        self._begins = False

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._train_function is not None:
            if batch < self._position.step:
                return
            self._train_again()
        if batch >= self._source.course.length(self._position.epoch):
            return  # Keras asks for one more before it finds that a pass over the data has ended
        self._position = Position(self._position.epoch, batch, self._before_epoch + batch)
        self._log.beat(self._trained, epoch=self._position.epoch, step=batch)
        self._save_if_due()
        super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._train_function is None:
            self._done = min(batch + 1, self._source.course.length(self._position.epoch))
            super().on_train_batch_end(batch, logs)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._interrupts.received is not None:
            # Inside a validation there is nothing to save that could be resumed; the last checkpoint stands.
            self._tell_end("interrupted")
            self._interrupts.deliver()
        super().on_test_batch_begin(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._before_epoch += self._done
        self._position = Position(epoch + 1, 0, self._before_epoch)
        self._last_logs = dict(logs or {})
        # What callbacks added, such as the learning rate, stands in the history alone.
        latest = {name: values[-1] for name, values in self._history.history.items() if values}
        self._log.write("epoch", epoch=epoch, logs=_numbers(latest))
        ended = self._trained_model.stop_training or epoch + 1 >= self._epochs
        if ended and not self._save(ended=True):
            self._save(ended=True)  # what failed may have been the save before it

    def on_train_end(self, logs: Any = None) -> None:
        super().on_train_end(logs or self._last_logs)
        if not (self._saved and self._saved.is_all_of(self._epochs)):
            self._tell_end("finished")

    # What the run's owner calls

    def close(self, failed: str) -> None:
        """End the session, however `fit` ended; `failed` is "" or the outcome where it did not reach its end.

        Waits until what was saved is committed, here and in the store: for one that does not answer 10 minutes, unless
        the training failed or a signal comes. Raises `RunLost` when another session has taken the run.
        """
        self._train_again()
        if failed:
            logs_of_callbacks.close(self.callbacks)
            self._tell_end(failed)
        try:
            if not failed:
                self._wait_for_store()
            self._let_go_of_run()
        except RunLost:
            if not failed:
                raise

    def _wait_for_store(self) -> None:
        """Return when the last checkpoint is in the store, or is not to be waited for any longer."""
        begun, said = time.monotonic(), False
        while self._interrupts.received is None and time.monotonic() - begun < PATIENCE:
            try:
                return self._checkpoints.wait()
            except (ConnectionFailed, RateLimited) as error:
                if not said:
                    say(
                        f"{self._checkpoints.name}: {error.what} The last checkpoint is on this machine; waiting up to "
                        f"{clock.words(PATIENCE)} to bring it there, interrupt to go on without"
                    )
                said = True
                time.sleep(_ASK_AGAIN)
                if self._interrupts.received == signal.SIGINT:
                    self._interrupts.received = None
                    return None
            except RunLost:
                raise
            except HaversackError as error:
                return self._say_failed(error)
        return None

    def _let_go_of_run(self) -> None:
        try:
            self._checkpoints.close()
        except RunLost:
            raise
        except (ConnectionFailed, RateLimited) as error:
            say(
                f"{self._checkpoints.name}: {error.what} The last checkpoint is on this machine only, in "
                f"{self._checkpoints.folder}; the same call brings it there"
            )
        except HaversackError as error:
            self._say_failed(error)

    def _say_failed(self, error: HaversackError) -> None:
        say(f"{self._checkpoints.name}: the last save failed: {error}")

    # Saving

    @property
    def _trained(self) -> float:
        """Seconds of training in all sessions."""
        return self._trained_before + time.monotonic() - self._begun

    def _save_if_due(self) -> None:
        if self._interrupts.received is not None:
            self._save()
            self._let_go_of_run()
            self._tell_end("interrupted")
            self._interrupts.deliver()
        elif time.monotonic() >= self._due and not self._checkpoints.saving:
            self._save()

    def _save(self, ended: bool = False) -> bool:
        """Save the state between two steps, and whether that began well.

        A disk that is full or a drive that is away does not stop the training: it is said, and tried again when due.
        """
        if self._position.total == self._last_saved and not ended:
            return True
        begun = time.monotonic()
        if self._async_train:
            self._flush_futures()
        try:
            self._checkpoints.save(self._position.total, self._tree(ended), facts=self._facts, best=self._is_best())
        except (RunTaken, RunLost):
            raise
        except HaversackError as error:
            say(f"{self._checkpoints.name}: {error} The training goes on, and saving is tried again.")
            return False
        finally:
            now = time.monotonic()
            due = now + RHYTHM.pause(now - begun)
            self._due = min(due, self._last_call) if now < self._last_call else due
        self._last_saved = self._position.total
        position = self._position
        self._log.write("save", epoch=position.epoch, step=position.step, total=position.total)
        return True

    def _tree(self, ended: bool) -> dict[str, Any]:
        position = self._position
        return {
            "variables": state.values(self._trained_model),
            "architecture": self._architecture,
            "streams": state.streams(),
            "memory": self._memory.take(),
            "logs": logs_of_callbacks.take(self.callbacks),
            "logs of last epoch": encode(self._last_logs),
            "position": [position.epoch, position.step, position.total],
            "fit": {"trained": self._trained, "asked": self._epochs, "ended": ended, "seed": self._source.seed},
        }

    def _is_best(self) -> bool:
        """Whether the epoch that has just ended has the smallest loss so far."""
        history = self._history.history
        measure = "val_loss" if "val_loss" in history else "loss"
        loss = self._last_logs.get(measure)  # not every epoch needs to be validated
        return self._position.step == 0 and loss is not None and float(loss) <= min(history.get(measure, [math.inf]))

    # Going on

    def _put_back(self, saved: Saved) -> None:
        state.assign(self._trained_model, saved.tree["variables"])
        self._memory.put_back(saved.tree["memory"])
        state.put_back_streams(saved.tree["streams"])
        saved.tree.clear()  # a second copy of the model

    def _pass_over_steps(self) -> None:
        self._train_function = self._trained_model.train_function
        self._trained_model.train_function = lambda values, batches: ({}, values)

    def _train_again(self) -> None:
        if self._train_function is not None:
            self._trained_model.train_function, self._train_function = self._train_function, None

    # Telling

    def _tell_begin(self) -> None:
        resumed = (self._position.epoch, self._position.step) if self._saved else None
        pulse = self._log.last_pulse()
        repeated = max(0.0, pulse - self._saved.trained) if self._saved and pulse is not None else None
        known = self._log.has_sessions
        self._log.begin(self._epochs, resumed, repeated, steps=self.params["steps"])
        if self._saved is None:
            return
        if not known:
            self._tell_epochs_from_elsewhere()
        lost = "what came after it is repeated" if repeated is None else f"{repeated:.0f} s repeated"
        waiting = _uploads(self._checkpoints.pending) or "nothing"
        say(
            f"{self._checkpoints.name}: resumed at epoch {self._position.epoch + 1}, step {self._position.step}; "
            f"{lost}; {waiting} pending"
        )
        changed = fingerprint.differences(self._saved.facts["machine"], self._facts["machine"])
        if changed:
            say(
                f"{self._checkpoints.name}: the order of the data and the random streams go on as they were; the last "
                f"digits may differ, because of {'; '.join(changed)}"
            )

    def _next_save(self) -> str:
        left = "now" if self._checkpoints.saving else f"{max(0.0, self._due - time.monotonic()):.0f}s"
        waiting = _uploads(self._checkpoints.pending)
        return f"{left}, {waiting} pending" if waiting else left

    def _tell_epochs_from_elsewhere(self) -> None:
        """Write down the epochs that another machine trained, whose log is not here."""
        assert self._saved is not None
        memories = self._saved.tree["memory"]
        history = next((one["values"] for one in memories if one["class"] == "History"), None)
        if history is None:
            return
        columns = decode(history["history"])
        for number, epoch in enumerate(decode(history["epoch"])):
            row = {name: column[number] for name, column in columns.items() if number < len(column)}
            self._log.write("epoch", epoch=epoch, logs=_numbers(row))

    def _tell_end(self, outcome: str) -> None:
        self._log.write("end", outcome=outcome)


def check_same(name: str, what: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise `TrainingError` when the run `name` was trained with another `what` than is given now."""
    changed = fingerprint.differences(before[what], now[what])
    if changed:
        raise TrainingError(
            f"The run {name} began with {'other data' if what == 'data' else 'another model'}: {'; '.join(changed)}.",
            "Give this training another name, or begin anew with restart=True, which keeps the old run.",
        )


def _last_call() -> float:
    """When to save once more because the session ends soon, as `time.monotonic` counts; never where no end is known."""
    left = clock.remaining()
    return math.inf if left is None else time.monotonic() + left - min(left * _SHARE_LEFT, _LONGEST_LEFT)


def say(text: str) -> None:
    """One line for the user; in a notebook among the lines of the training, not as an error."""
    print(f"haversack: {text}", file=sys.stdout if place.in_kernel() else sys.stderr, flush=True)


def _uploads(count: int) -> str:
    return f"{count} upload{'' if count == 1 else 's'}" if count else ""


def _numbers(found: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in found.items() if np.ndim(value) == 0}
