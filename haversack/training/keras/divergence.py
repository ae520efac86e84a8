"""Whether a training has diverged: weights or loss that are NaN or infinite, and the states on the way there.

Such a state is saved like any other, since with nothing changed the run must end as without an interruption. But it is
saved as diverged, so that the last good checkpoint before it is kept, and a session with another learning rate begins
there. On the way to NaN a loss grows over a few steps, and a state in which it has already grown a hundredfold is of no
use either: it too is saved as diverged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from haversack.training.keras import state

NEXT_STEP = "call fit again with a smaller learning rate, clipnorm=1.0 or another setting of the optimizer"
_FACT = "diverged"
# A state is not to go on from if its loss, or its largest weight, is so many times what it was.
_EXPLODED = 100.0


class Divergence:
    """Watches one session of a training.

    ===============  ==========================  ==========================================================
    field            type                        meaning
    ===============  ==========================  ==========================================================
    _model           keras.Model                 the model
    _facts           dict                        the facts of the session's checkpoints
    _say             function of a str           prints a line about the run
    _loss            number or JAX scalar        mean loss of the current epoch so far, else of the last one
    _smallest_loss   float                       the smallest loss at a save of this session
    _sound_weight    float                       the largest weight of the last sound state, 0 for none
    _is_reported     bool                        whether a loss that is no number was printed
    ===============  ==========================  ==========================================================
    """

    def __init__(self, model: Any, facts: dict[str, Any], say: Callable[[str], None]) -> None:
        self._model = model
        self._facts = facts
        self._say = say
        self._loss: Any = 0.0
        self._smallest_loss, self._sound_weight = math.inf, 0.0
        self._is_reported = False

    def note(self, logs: Mapping[str, Any] | None) -> None:
        """Note the results of a step or an epoch. They are not read before the next save: the step may still run."""
        self._loss = (logs or {}).get("loss", self._loss)

    def is_to_be_left(self, at: tuple[int, int], *, ended: bool) -> bool:
        """Whether the state between two steps is no state to go on from; if it is NaN or infinite, print that once.

        `at` is the epoch and step, from 0, and `ended` whether the training is over.
        """
        weight, loss = state.largest_weight(self._model), float(np.asarray(self._loss))
        if not math.isfinite(weight) or (ended and not math.isfinite(loss)):
            self._report(at)
            return True
        self._smallest_loss = min(self._smallest_loss, loss if loss > 0 else math.inf)
        if not (loss <= _EXPLODED * self._smallest_loss and weight <= _EXPLODED * (self._sound_weight or math.inf)):
            return True
        self._sound_weight = weight
        return False

    def report_epoch(self, epoch: int) -> None:
        """Print that the loss of an epoch, from 0, is NaN or infinite, once; with the weights, if they are too."""
        loss = float(np.asarray(self._loss))
        if math.isfinite(loss):
            return
        if not math.isfinite(state.largest_weight(self._model)):
            self._report((epoch + 1, 0))
        elif not self._is_reported:
            self._is_reported = True
            self._say(f"the loss is {loss} in epoch {epoch + 1}; the weights are finite")

    def _report(self, at: tuple[int, int]) -> None:
        if _FACT not in self._facts:
            self._facts[_FACT] = list(at)
            self._say(
                f"weights or loss are NaN or infinite by epoch {at[0] + 1}, step {at[1]}. The last good checkpoint "
                f"before that is kept; to go on from it, {NEXT_STEP}"
            )
