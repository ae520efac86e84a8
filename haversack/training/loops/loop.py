"""A loop of the user's own over batches, as a run: it is saved while it trains, and goes on where it was.

    run = haversack.resumable(loader, name="digits", model=model, optimizer=optimizer)
    for epoch in run.epochs(10):
        for x, y in run:
            ...

The step of a batch is done when the loop asks for the next one. There the run is saved, before the next batch is drawn:
model, optimizer and the like, the random streams, and how many batches are done. A session that resumes in the middle
of an epoch sets the streams to their states before that epoch, opens the pass over the batches again, skips those that
are done, and then restores everything as it was at the save. The loop's body does not run for a skipped batch.

What it cannot know are local variables of the loop's body, such as a sum of losses: they begin anew in an epoch that is
resumed, unless they are in a dict or list that was given too.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from haversack.errors import InputError, TrainingError
from haversack.training.batches import Batches, digest, length
from haversack.training.checkpoints import snapshot
from haversack.training.checkpoints.checkpoints import Checkpoints, Restored
from haversack.training.console import print_line
from haversack.training.interrupts import Interrupts
from haversack.training.loops.counting import counts_from_zero
from haversack.training.loops.state import HeldState
from haversack.training.owned_run import Captured, OwnedRun, Position
from haversack.training.part import Part, capture_all, restore_all, same
from haversack.training.rhythm import Rhythm

RHYTHM = Rhythm()
"""When loops save."""


@dataclass(frozen=True)
class SavedLoop:
    """What a checkpoint of a loop holds.

    Attributes:
        position: how far the run was.
        trained: seconds of training in all sessions.
        ended: whether the last epoch that was asked for was done, or the user had stopped the training.
        asked: the number of epochs that was asked for; 0 if the user's code counts them.
        tree: the whole tree, with the parts.
        facts: the facts of the checkpoint.
    """

    position: Position
    trained: float
    ended: bool
    asked: int
    tree: dict[str, Any]
    facts: dict[str, Any]

    @classmethod
    def of(cls, restored: Restored | None) -> SavedLoop | None:
        """Parse the result of `Checkpoints.restore`; raises `TrainingError` if it is not of a loop."""
        if restored is None:
            return None
        tree = restored.tree
        if not isinstance(tree, dict) or "loop" not in tree:
            raise TrainingError(
                f"The checkpoints in {restored.checkpoint.where} are not those of haversack.resumable.",
                "Give this training another name.",
            )
        return cls(position=Position(*tree["position"]), tree=tree, facts=dict(restored.facts), **tree["loop"])

    def is_finished(self, epochs: int) -> bool:
        """Whether a loop over this many epochs has nothing left to do."""
        return epochs <= self.position.epoch or (self.ended and epochs <= self.asked)


class ResumableLoop:
    """The batches of a run, pass by pass: iterate over it in each epoch. See `resumable`.

    There are two ways to count epochs. `epochs(count)` leaves out the epochs that are done, and knows the last one.
    Otherwise each iteration over this object is the next epoch, and one over an epoch that is done yields nothing.

    ==============  ===================================================================================
    state           what it means
    ==============  ===================================================================================
    opened          the run is claimed and read; nothing is restored yet
    training        `_run.begin` was called: inside an epoch, or between two
    closed          the run is released; iterating again claims it anew at the next save
    ==============  ===================================================================================

    ==============  ===================================================================================
    transition      cause
    ==============  ===================================================================================
    → training      the first epoch that is not done begins; in it, the state is restored
    → closed        `epochs` ends or is left; `close`; the same name is opened again; the process exits
    ==============  ===================================================================================

    The thread that iterates is the only one that uses the object. Fields:

    ================  ====================  ===============================================================
    field             type                  meaning
    ================  ====================  ===============================================================
    _batches          Batches               the source of batches
    _parts            dict[str, Part]       the user's objects and the state
    _streams          dict[str, Part]       the random streams: the process's and the source's
    _held             HeldState             the state that a functional step returns anew
    _begin_batch      Callable              called before each batch
    _interrupts       Interrupts            holds signals inside a pass
    _run              OwnedRun              saves, log, position
    _saved            SavedLoop or None     what is to be restored; None once it is
    _before           dict                  the streams before the current pass (of an iterator: before its first)
    _last             str                   digest of the last batch
    _logs             dict                  what the user logged in this epoch
    _asked            int                   the number of epochs asked for; 0 if the user's code counts them
    _passes           int                   iterations so far, if the user's code counts
    _begun            bool                  whether the run is claimed and its session logged
    _in_epoch         bool                  whether `epochs` waits for the end of an epoch
    _iterated         bool                  whether the current epoch was iterated over
    _complete         bool                  whether the last pass came to its end
    _looked           bool                  whether it is known how the batches are counted
    _between_only     bool                  whether the loop can be resumed between epochs only
    _stopped          bool                  whether `stop` was called
    ================  ====================  ===============================================================
    """

    def __init__(
        self,
        batches: Batches,
        parts: dict[str, Part],
        streams: dict[str, Part],
        held: HeldState,
        checkpoints: Checkpoints,
        saved: SavedLoop | None,
        facts: dict[str, Any],
        begin_batch: Callable[[], None],
    ) -> None:
        self._batches = batches
        self._parts = parts
        self._streams = {**streams, **batches.parts}
        self._held = held
        self._begin_batch = begin_batch
        self._interrupts = Interrupts()
        self._saved = saved
        self._run = OwnedRun(
            checkpoints,
            self._interrupts,
            self._capture,
            facts=facts,
            rhythm=RHYTHM,
            framework=facts["framework"],
            resumed_at=saved.position if saved else None,
            trained=saved.trained if saved else 0.0,
        )
        self._before: dict[str, Any] = {}
        self._last = ""
        self._logs: dict[str, float] = {}
        self._asked = 0
        self._passes = 0
        self._begun = False
        self._in_epoch = False
        self._iterated = False
        self._complete = False
        self._looked = False
        self._between_only = False
        self._stopped = False

    # For the user

    def epochs(self, count: int) -> Iterator[int]:
        """Yield the numbers, from 0, of the epochs that are not done, up to `count` epochs of all sessions together.

        The epoch in which the run resumes is yielded too; iterating over this object in it yields the batches that are
        left. At the end the run is saved and released, and a store that does not answer is waited for. A run that has
        its `count` epochs is loaded, and nothing is yielded. Leaving the loop early releases the run without a save;
        call `stop` instead if the training is over.

        Raises `InputError` if the object was iterated over before or left in the middle of an epoch, or if another loop
        of this process trains the run; `RunTaken` if another session owns the run; at its end `RunLost` if another
        session took the run over.
        """
        if self._passes:
            raise InputError(
                f"{self._run.name} was iterated over before its first epoch.",
                "Look at a batch of the loader itself, or iterate inside `for epoch in run.epochs(…):`.",
            )
        if self._saved is None and self._run.position.step > 0:
            raise InputError(
                f"{self._run.name} was left in the middle of an epoch.",
                "Call haversack.resumable again: it goes on after the last batch that was saved.",
            )
        self._asked = count
        if self._saved is not None and self._saved.is_finished(count):
            print_line(f"{self._run.name}: finished before; its state is loaded")
            self._restore()
            self._run.close(succeeded=False)  # `take_over` has claimed it
            return
        self._begin()
        try:
            for epoch in range(self._run.position.epoch, count):
                self._start_epoch()
                yield epoch
                self._end_epoch(epoch)
                if self._stopped:
                    break
        except GeneratorExit:
            self._in_epoch = False
            self.close()
            raise
        self._run.save_last()
        self._complete = True
        self._close(self._digest())

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of the current epoch that are not done, each after the step of the one before is saved.

        Inside `epochs`, once in each epoch; without it, each call begins the next epoch. A SIGINT or SIGTERM waits
        until the step is done and saved. Raises `RunTaken` and `RunLost` if the save does, `InputError` if the first
        epoch has no batch, and `TrainingError` if the run resumes inside an epoch whose batches `enumerate` or `zip`
        counts.
        """
        if self._asked and not self._in_epoch:
            return self._batches.open()  # not a training: a look at the data before or between the epochs
        return self._pass()

    def enumerate(self, start: int = 0) -> Iterator[tuple[int, Any]]:
        """Yield (number of the batch in its epoch, batch), like `enumerate`, also in an epoch that is resumed."""
        for batch in self:
            yield start + self._run.position.step, batch

    def stop(self) -> None:
        """End the training with this epoch: `epochs` yields no other one, and the run counts as finished."""
        self._stopped = True

    def log(self, **values: float) -> None:
        """Record results of the current epoch, such as `loss=0.3`; `haversack runs` shows and plots them."""
        self._logs |= {name: float(value) for name, value in values.items()}

    def close(self) -> None:
        """Release the run, so that another session may train it; does nothing if it was not begun.

        After a pass that came to its end, wait until the last checkpoint is in the store. Raises `RunLost` if another
        session took the run over.
        """
        self._close()

    def _close(self, digest_of_parts: str = "") -> None:
        if self._begun:
            self._begun = False
            _open.pop(self._run.checkpoints.folder, None)
            outcome = "failed" if self._run.is_broken else "finished" if self._complete else "interrupted"
            self._run.end(outcome, digest_of_parts if outcome == "finished" else "")
            self._run.close(succeeded=self._complete)

    @property
    def state(self) -> Any:
        """The state that was given as `state`; assign the one that a step returned."""
        return self._held.value

    @state.setter
    def state(self, value: Any) -> None:
        self._held.value = value

    @property
    def position(self) -> Position:
        """How far the run is: epoch, steps of it that are done, and steps of all epochs."""
        return self._run.position

    def __len__(self) -> int:
        """The number of batches in a whole epoch."""
        return len(self._batches.source)

    def __getattr__(self, name: str) -> Any:
        """Return the attribute of the loader, such as `dataset`."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._batches.source, name)

    # Epochs

    def _begin(self) -> None:
        """Claim the run and begin its session, once."""
        if self._begun:
            return
        folder = self._run.checkpoints.folder
        if folder in _open:
            raise InputError(
                f"Another loop of this process trains the run {self._run.name}.",
                "Give this training another name, or call close() of the other loop first.",
            )
        self._run.checkpoints.claim()
        self._begun = True
        _open[folder] = self
        self._run.begin(self._asked, length(self._batches.source))

    def _start_epoch(self) -> None:
        """Begin an epoch of `epochs`: save if a save is due or, if the run resumes between two epochs, restore it."""
        self._in_epoch, self._iterated = True, False
        if self._saved is None:
            self._run.save_if_due()
        elif self._run.position.step == 0:
            self._restore()

    def _end_epoch(self, epoch: int) -> None:
        """Log an epoch of `epochs` after its body."""
        if self._saved is not None:
            self._restore()  # the body did not iterate
        self._in_epoch = False
        self._log_epoch(epoch)

    def _log_epoch(self, epoch: int) -> None:
        self._run.log.write("epoch", epoch=epoch, logs=self._logs)
        self._logs = {}
        self._run.reach(Position(epoch + 1, 0, self._run.position.total))

    def _begin_pass(self) -> int | None:
        """Return the epoch that an iteration trains; None if that epoch is done already."""
        if self._in_epoch:
            if self._iterated:
                raise InputError(
                    f"{self._run.name} was iterated over twice in one epoch.", "Iterate over it once in each epoch."
                )
            self._iterated = True
            return self._run.position.epoch
        if self._passes == 0:
            self._begin()
        elif self._saved is None:
            self._log_epoch(self._passes - 1)
        self._passes += 1
        if self._saved is not None and self._passes <= self._run.position.epoch:
            self._pass_over_done_epoch()
            return None
        return self._passes - 1

    def _pass_over_done_epoch(self) -> None:
        """Restore the state also for the bodies of epochs that are done, which may validate or print it."""
        if self._passes == 1:
            assert self._saved is not None
            print_line(
                f"{self._run.name}: the epochs that are done yield no batch, but the rest of their bodies runs again; "
                "write `for epoch in run.epochs(…):` to leave them out"
            )
            self._restore(keep=True)

    # Batches

    def _pass(self) -> Iterator[Any]:
        """One pass over the batches: skip those that are done, yield the others."""
        if self._begin_pass() is None:
            return
        self._complete = False
        self._check_counting(sys._getframe())
        if not self._in_epoch and self._saved is None:
            self._run.save_if_due()
        with self._interrupts:
            iterator = self._open()
            while True:
                self._reach_save_point()
                try:
                    batch = next(iterator)
                except StopIteration:
                    break
                self._last = digest(batch)
                try:
                    yield batch
                finally:
                    at = self._run.position
                    self._run.reach(Position(at.epoch, at.step + 1, at.total + 1))
            if not self._in_epoch:
                self._run.save_if_affordable()  # it may have been the last epoch: the user's code counts them
        if self._run.position.step == 0:
            self._report_no_batch()
        self._complete = True

    def _open(self) -> Iterator[Any]:
        """Begin the pass over the source and, if the run resumes in it, get to its first batch that is not done."""
        saved, at = self._saved, self._run.position
        if saved is None or (at.step == 0 and not self._batches.once):
            if saved is not None:
                self._restore()
            if not (self._batches.once and self._before):
                self._before = capture_all(self._streams)
            return self._batches.open()
        restore_all(self._streams, saved.tree["source"]["before"])
        self._before = capture_all(self._streams)
        iterator = self._batches.open()
        self._skip(iterator, at.total if self._batches.once else at.step, saved.tree["source"]["last"])
        self._restore()
        return iterator

    def _skip(self, iterator: Iterator[Any], count: int, last_digest: str) -> None:
        """Skip the batches that are done; print a line if the last of them is not the one that was trained on.

        Batches that draw at random in this process cannot be compared: between them the training drew too.
        """
        states = self._before
        last = self._batches.skip(iterator, 1)
        if count > 1:
            states = capture_all(self._streams)
            last = self._batches.skip(iterator, count - 1)
        if last is not None and same(states, capture_all(self._streams)) and digest(last) != last_digest:
            print_line(
                f"{self._run.name}: the source yields other batches than in the session before, so the run goes on, "
                "but not exactly; seed what shuffles or changes them"
            )

    def _reach_save_point(self) -> None:
        """The step of the last batch is done: write the pulse, and save if a save is due or a signal is held.

        Before the first batch nothing is saved: a session that resumes between two epochs opens the pass itself, and
        opening this one has drawn from the random streams already.
        """
        self._run.beat()
        if self._run.position.step > 0:
            if not self._between_only:
                self._run.save_if_due()
            elif self._run.is_interrupted:
                self._run.interrupt()
        self._begin_batch()

    def _report_no_batch(self) -> None:
        """Print that an epoch has no batch; raises `InputError` if the run has trained on none at all."""
        if self._run.position.total == 0:
            raise InputError(
                f"{self._run.name} has no batch to train on.",
                "Look at the source; an iterator has a single pass, so it may have been read before.",
            )
        print_line(
            f"{self._run.name}: there is no batch in epoch {self._run.position.epoch + 1}; an iterator has a single "
            "pass, so give a loader, a list or another object that can be iterated over again"
        )

    def _check_counting(self, frame: FrameType) -> None:
        """Save between epochs only, and say so, if `enumerate` or `zip` counts the batches of this pass from 0.

        Looks at the session's first pass only, since it looks at every object of the process.
        """
        is_first, self._looked = not self._looked, True
        if not is_first or not counts_from_zero(self, frame):
            return
        if self._saved is not None and self._run.position.step > 0:
            raise TrainingError(
                f"{self._run.name} resumes at step {self._run.position.step} of an epoch, but `enumerate` or `zip` "
                "would count its batches from 0.",
                "Write `for i, batch in run.enumerate():`.",
            )
        self._between_only = True
        print_line(
            f"{self._run.name}: saved between epochs only, because `enumerate` and `zip` count from 0 in an epoch that "
            "resumes in its middle; write `for i, batch in run.enumerate():`"
        )

    # Saving and restoring

    def _capture(self, ended: bool) -> Captured:
        at = self._run.position
        tree = {
            "loop": {"trained": self._run.trained, "ended": ended, "asked": self._asked},
            "position": [at.epoch, at.step, at.total],
            "parts": capture_all(self._parts),
            "streams": capture_all(self._streams),
            "source": {"before": self._before, "last": self._last},
        }
        broken = [name for name, part in self._parts.items() if not part.is_finite()]
        return Captured(tree, broken=f"{' and '.join(broken)}: NaN or infinity among the numbers" if broken else "")

    def _digest(self) -> str:
        """A hash of the parts' arrays; "" if the parts cannot be saved, which the last save has printed."""
        try:
            return snapshot.digest(capture_all(self._parts))
        except InputError:
            return ""

    def _restore(self, keep: bool = False) -> None:
        """Restore the parts and the streams, and free what was read unless `keep`."""
        assert self._saved is not None
        for line in [
            *restore_all(self._parts, self._saved.tree["parts"]),
            *restore_all(self._streams, self._saved.tree["streams"]),
        ]:
            print_line(f"{self._run.name}: {line}")
        self._last = self._saved.tree["source"]["last"]
        if not keep:
            self._saved = None


_open: dict[Path, ResumableLoop] = {}
"""The loops of this process that own a run, by the run's folder."""


def close_open(folder: Path | None = None) -> None:
    """Release the run in `folder`, or every run, if a loop of this process owns it."""
    for loop in [loop for path, loop in _open.items() if folder in (None, path)]:
        loop.close()


atexit.register(close_open)
