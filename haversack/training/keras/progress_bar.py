"""Keras's progress bar with one figure more: when the training is saved next.

It stands behind the metrics, in the line that Keras writes over, in a terminal as in a notebook. The line that stays
when an epoch is over is Keras's own, and so is all of it with `verbose=2`, which writes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

_NAME = "next save"


class ProgressBar(keras.callbacks.ProgbarLogger):
    """`next_save` returns the words for when that is: "12s"."""

    def __init__(self, next_save: Callable[[], str]) -> None:
        super().__init__()
        self._next_save = next_save

    def _update_progbar(self, batch: int, logs: Any = None) -> None:
        if self.verbose == 1:
            self._maybe_init_progbar()
            self.progbar._values[_NAME] = self._next_save()
            self.progbar._values_order = [*self._shown(logs), _NAME]
        super()._update_progbar(batch, logs)

    def _finalize_progbar(self, logs: Any) -> None:
        if self.progbar is not None:
            self.progbar._values_order = self._shown(logs)
        super()._finalize_progbar(logs)

    def _shown(self, logs: Any) -> list[str]:
        """The metrics in their order. A new list each time, as Keras may call from several threads."""
        return [name for name in dict.fromkeys([*self.progbar._values_order, *(logs or {})]) if name != _NAME]
