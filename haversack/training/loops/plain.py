"""A loop that is not a run: several processes train together, and each would save a part of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


class PlainLoop:
    """What `ResumableLoop` offers, without saving anything."""

    def __init__(self, source: Iterable[Any], state: Any) -> None:
        self._source = source
        self._stopped = False
        self.state = state

    def epochs(self, count: int) -> Iterator[int]:
        """Yield 0 to `count` - 1."""
        for epoch in range(count):
            yield epoch
            if self._stopped:
                return

    def __iter__(self) -> Iterator[Any]:
        return iter(self._source)

    def enumerate(self, start: int = 0) -> Iterator[tuple[int, Any]]:
        """Yield (number of the batch in its epoch, batch)."""
        return enumerate(self._source, start)

    def stop(self) -> None:
        """End the training with this epoch."""
        self._stopped = True

    def log(self, **values: float) -> None:
        """Record nothing."""

    def close(self) -> None:
        """Do nothing."""

    def __len__(self) -> int:
        return len(self._source)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        """Return the attribute of the loader, such as `dataset`."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._source, name)
