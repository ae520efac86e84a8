"""Keras's progress bar with one more figure: when the next checkpoint is saved.

The figure follows the metrics, in the line that Keras overwrites while an epoch runs, in a terminal and in a notebook.
The line that remains when the epoch ends is Keras's own. With `verbose=2` all output is Keras's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

_NAME = "next save"


class ProgressBar(keras.callbacks.ProgbarLogger):  # type: ignore[misc]
    """A progress bar that also shows, at each update, the text that `next_save()` returns, such as "12s".

    Keras may call the bar from the worker threads of its `CallbackList`, so `next_save` must be thread-safe.
    """

    def __init__(self, next_save: Callable[[], str]) -> None:
        super().__init__()
        self._next_save = next_save

    def _update_progbar(self, batch: int, logs: Any = None) -> None:
        if self.verbose == 1:
            self._maybe_init_progbar()
            self.progbar._values[_NAME] = self._next_save()
            self.progbar._values_order = [*self._metric_names(logs), _NAME]
        super()._update_progbar(batch, logs)

    def _finalize_progbar(self, logs: Any) -> None:
        if self.progbar is not None:
            self.progbar._values_order = self._metric_names(logs)
        super()._finalize_progbar(logs)

    def _metric_names(self, logs: Any) -> list[str]:
        """The names of the metrics in display order, as a new list: several threads may use the bar."""
        return [name for name in dict.fromkeys([*self.progbar._values_order, *(logs or {})]) if name != _NAME]
