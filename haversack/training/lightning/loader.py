"""The training batches of a fit: saved between two of them, and replayed to where the session before was.

Lightning takes a `CombinedLoader` as training data. `saving_loader` returns one of the same iterables whose `next` is
the point between two batches: the step of the last one, its validation and its callbacks are done, and the next batch
is not drawn. A session that resumes inside an epoch opens the pass again with the random streams of that moment, skips
the batches that are done, and then has everything else restored (`session`).

Where the number of batches is unknown, Lightning fetches one batch ahead, to know which is the last. Then a batch is
drawn but not trained on at each save. It is drawn again, from the states that the streams had before it.

Private names of Lightning: `CombinedLoader._iterator`, its `iterators` and `CombinedLoader._mode`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from torch.utils.data import DataLoader

from haversack.training import batches, streams
from haversack.training.batches import Batches, digest, length
from haversack.training.lightning.package import module
from haversack.training.part import Part, capture_all, restore_all, same
from haversack.training.torch import streams as torch_streams
from haversack.training.torch.loader import of_loader


class SavePoint(Protocol):
    """What a loader tells its session."""

    def pass_begins(self, loader: Any) -> None:
        """A pass is opened."""

    def before_batch(self, loader: Any) -> None:
        """A batch is asked for; it is not drawn yet."""


class Replay:
    """Where a pass over `loader` is, and how another session gets there.

    Fields:

    ============  ====================  ================================================================
    field         type                  meaning
    ============  ====================  ================================================================
    drawn         int                   batches drawn in this pass
    _sources      list[Batches]         the combined loaders
    _generators   dict[str, Part]       their random generators, and those of the validation's loaders
    streams       dict[str, Part]       the generators, and the process's random streams
    _before       dict                  the streams before the pass was opened
    _first        dict                  before its first batch
    _last         dict                  before its last batch; only where batches are drawn ahead
    _digest       str                   of the last batch
    ============  ====================  ================================================================
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._sources = [_batches_of(one) for one in loader.flattened]
        self._generators = _generators("", self._sources)
        self.streams: dict[str, Part] = {}
        self.drawn = 0
        self._before: dict[str, Any] = {}
        self._first: dict[str, Any] = {}
        self._last: dict[str, Any] = {}
        self._digest = ""

    @property
    def cycles(self) -> bool:
        """Whether a shorter loader is opened again inside an epoch, with streams that no replay knows."""
        lengths = [length(one) for one in self._loader.flattened]
        is_uneven = len(lengths) > 1 and (None in lengths or len(set(lengths)) > 1)
        return bool(self._loader._mode == "max_size_cycle" and is_uneven)

    @property
    def is_single_pass(self) -> bool:
        """Whether a loader is an iterator, which cannot be opened again."""
        return any(one.once for one in self._sources)

    def watch(self, loaders: Any) -> None:
        """Include the random generators of the validation's loaders, a loader or a collection of them."""
        found = [_batches_of(one) for one in _flatten(loaders) if isinstance(one, DataLoader)]
        self._generators |= _generators("validation ", found)
        self.streams |= self._generators

    def facts(self) -> dict[str, Any]:
        return self._numbered([one.facts for one in self._sources])

    def settings(self) -> dict[str, Any]:
        return self._numbered([one.settings for one in self._sources])

    def _numbered(self, given: list[Mapping[str, Any]]) -> dict[str, Any]:
        """The facts of all loaders in one dict; only where there are several, the keys are numbered."""
        several = len(given) > 1
        return {f"{key} {n}" if several else key: one[key] for n, one in enumerate(given) for key in one}

    def open(self) -> None:
        """Note that a pass is about to be opened."""
        self._end_workers()
        self.streams = global_streams() | self._generators
        self._before = capture_all(self.streams)
        self.drawn, self._first, self._last = 0, {}, {}

    def draw(self, fetch: Any) -> Any:
        """Draw the next batch by calling `fetch`."""
        if self.drawn == 0:
            self._first = capture_all(self.streams)
        if length(self._loader) is None:
            self._last = capture_all(self.streams)
        drawn = fetch()
        self.drawn += 1
        self._digest = digest(_only(self._loader.iterables, drawn[0]))
        return drawn

    def capture(self) -> dict[str, Any]:
        return {
            "before": self._before, "first": self._first, "last": self._last, "drawn": self.drawn,
            "digest": self._digest, "generators": capture_all(self.streams),
        }  # fmt: skip

    def restore(self, saved: Mapping[str, Any], reopen: Any, fetch: Any) -> bool:
        """Open the pass again and skip the batches that are done; return False if the last was another one.

        `reopen` opens the loaders, `fetch` draws a batch from all of them.
        """
        self._end_workers()
        restore_all(self.streams, saved["before"])
        reopen()
        count = saved["drawn"] - (1 if saved["last"] else 0)
        is_same = True
        if saved["drawn"]:
            restore_all(self.streams, saved["first"])
        if count > 0:
            is_same = self._skip(count, fetch, saved["digest"] if not saved["last"] else None)
        self._first, self._last = dict(saved["first"]), dict(saved["last"])
        self._before = dict(saved["before"])
        self._digest, self.drawn = saved["digest"], count
        return is_same

    def restore_last(self, saved: Mapping[str, Any]) -> None:
        """Set the streams to their states before the batch that was drawn and not trained on."""
        restore_all(self.streams, saved["last"])

    def _end_workers(self) -> None:
        """End workers that outlive a pass, and with them their random streams; see `torch.loader`."""
        for one in self._loader.flattened:
            if isinstance(one, DataLoader) and getattr(one, "_iterator", None) is not None:
                one._iterator = None

    def _skip(self, count: int, fetch: Any, expected: str | None) -> bool:
        iterator = _only_iterator(self._loader) if len(self._sources) == 1 else None
        skip = self._sources[0].skip
        if iterator is None:
            iterator, skip = _Fetching(fetch, self._loader.iterables), batches.read
        states = capture_all(self.streams)
        last = skip(iterator, 1)
        if count > 1:
            states = capture_all(self.streams)
            last = skip(iterator, count - 1)
        # Batches that draw from the process's streams cannot be compared: between them the training drew too.
        if last is None or expected is None or not same(states, capture_all(self.streams)):
            return True
        return digest(last) == expected


def global_streams() -> dict[str, Part]:
    """Return the random streams that the process shares, by name."""
    return streams.parts() | torch_streams.parts()


class _Fetching(Iterator[Any]):
    """An iterator over the batches that `fetch` draws from `iterables`."""

    def __init__(self, fetch: Any, iterables: Any) -> None:
        self._fetch = fetch
        self._iterables = iterables

    def __next__(self) -> Any:
        return _only(self._iterables, self._fetch()[0])


def saving_loader(package: str, data: Any, session: SavePoint) -> Any:
    """Return the training data `data` (a loader, a collection of them, a `CombinedLoader`) as one that saves."""
    combined = module(package, "utilities.combined_loader").CombinedLoader
    if isinstance(data, combined):
        return _class(package)(data.iterables, data._mode, session)
    return _class(package)(data, "max_size_cycle", session)  # Lightning's own mode for training


@functools.cache
def _class(package: str) -> Any:
    base: Any = module(package, "utilities.combined_loader").CombinedLoader

    class SavingLoader(base):  # type: ignore[misc]
        """A `CombinedLoader` that tells its session of each pass and each batch."""

        def __init__(self, iterables: Any, mode: str, session: SavePoint) -> None:
            super().__init__(iterables, mode)
            self.session = session
            self._replay: Replay | None = None

        @property
        def replay(self) -> Replay:
            """Made when it is first used, because Lightning may put other loaders in place of the user's before."""
            self._replay = self._replay or Replay(self)
            return self._replay

        def __iter__(self) -> Any:
            self.session.pass_begins(self)
            return super().__iter__()

        def __next__(self) -> Any:
            self.session.before_batch(self)
            return self.replay.draw(super().__next__)

        def reopen(self) -> None:
            super().__iter__()

        def fetch(self) -> Any:
            return super().__next__()

    return SavingLoader


def _generators(prefix: str, sources: list[Batches]) -> dict[str, Part]:
    return {
        f"{prefix}{name} {number}": one for number, source in enumerate(sources) for name, one in source.parts.items()
    }


def _flatten(loaders: Any) -> list[Any]:
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, (list, tuple)):
        return [one for loader in loaders for one in _flatten(loader)]
    return [loaders]


def _batches_of(source: Any) -> Batches:
    return of_loader(source) if isinstance(source, DataLoader) else batches.of_iterable(source)


def _only_iterator(loader: Any) -> Any:
    """The iterator of the only loader; None where Lightning has it elsewhere."""
    iterators = getattr(getattr(loader, "_iterator", None), "iterators", None)
    return iterators[0] if isinstance(iterators, list) and len(iterators) == 1 else None


def _only(iterables: Any, drawn: Any) -> Any:
    """What the only loader of a collection gave, without the collection; of several, what all gave."""
    if isinstance(iterables, Mapping) and len(iterables) == 1:
        key = next(iter(iterables))
        return _only(iterables[key], drawn[key])
    if isinstance(iterables, (list, tuple)) and len(iterables) == 1:
        return _only(iterables[0], drawn[0])
    return drawn
