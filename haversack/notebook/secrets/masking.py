"""Replace secrets by `***` in everything that a job writes or shows.

Runs in the process of `haversack run`. Two things are masked: known secret values in all their spellings (`spellings`),
and strings in the format of well-known services' tokens (`formats`). Known values of fewer than 6 characters, or of
fewer than 3 different ones, are not masked, because they also occur in ordinary text. Images, audio, video and other
files in outputs are not searched.

`sessions.JobSessions` masks what it saves and shows: the executed notebook and its cell outputs, and the log. All that
a cell writes to one stream is one text by then, so a secret may be split over messages.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from typing import Any

from haversack.notebook.secrets import formats
from haversack.notebook.secrets.formats import Span
from haversack.notebook.secrets.spellings import Spelling, spellings

MASK = "***"
_MIN_LENGTH = 6
_MIN_DIFFERENT = 3
# Texts of at least this many characters are cached with their masked form.
_MIN_CACHED_LENGTH = 1000
# MIME types whose data is a file in base64. SVG is text, and so is what ends with +json or +xml.
_FILE = re.compile(
    r"(?:image|audio|video|font|model)/(?!svg)[^+]*(?:\+zip)?"
    r"|application/(?:pdf|octet-stream|wasm|zip|gzip|x-tar|x-hdf5?|vnd\.[\w.-]+)(?:\+zip|\+gzip)?"
)


class Secrets:
    """The known secret values. Thread-safe; all fields are guarded by `_lock`.

    The main thread masks outputs; the thread of `KernelLog` masks the kernel's log.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Each known value, with its spellings once a text was masked.
        self._values: dict[str, list[Spelling] | None] = {}
        # Long text → masked text. Each save masks all outputs again; this searches each only once per set of secrets.
        self._cache: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Secrets({len(self._values)} known)"

    def add(self, *values: str | None) -> None:
        """Add secret values, to be masked from now on.

        Of a value of several lines, each line is a secret too. None, "" and values that also occur in ordinary text are
        ignored.
        """
        texts = {text.strip() for value in values if value for text in (value, *value.splitlines())}
        with self._lock:
            new = {text for text in texts if _is_distinctive(text)} - self._values.keys()
            if new:
                self._values.update(dict.fromkeys(new))
                self._cache.clear()

    def mask(self, text: str, *, cached: bool = True) -> str:
        """Return `text` with every known secret and every string in a known token format replaced by `***`.

        With `cached`, a long text is kept until the next new secret, with its masked form, because it will be masked
        again.
        """
        with self._lock:
            if text in self._cache:
                return self._cache[text]
            masked = _replaced(text, [*self._known_spans(text), *formats.spans(text)])
            if cached and len(text) >= _MIN_CACHED_LENGTH:
                self._cache[text] = masked
            return masked

    def _known_spans(self, text: str) -> Iterable[Span]:
        """Yield where known values are in `text`. The caller holds `_lock`."""
        for value, found in self._values.items():
            if found is None:
                found = self._values[value] = spellings(value)
            for spelling in found:
                yield from spelling.spans(text)

    def mask_json(self, value: Any) -> Any:
        """Return a copy of a JSON value, such as a notebook, with all strings and field names masked.

        The values of fields named by the MIME type of an image, audio, video or other file are kept as they are. No
        field is lost: names that are the same once masked get more stars.
        """
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, list):
            return [self.mask_json(item) for item in value]
        if isinstance(value, dict):
            masked = type(value)()
            for name, item in value.items():
                name = self.mask(name)
                while name in masked:
                    name += "*"
                masked[name] = item if _FILE.fullmatch(name) else self.mask_json(item)
            return masked
        return value


def _is_distinctive(value: str) -> bool:
    """Whether `value` is unlikely to occur in ordinary text."""
    return len(value) >= _MIN_LENGTH and len(set(value)) >= _MIN_DIFFERENT


def _replaced(text: str, spans: list[Span]) -> str:
    """Return `text` with `***` in place of all `spans`, in any order; those that overlap or touch are one."""
    pieces: list[str] = []
    copied = 0
    for start, end in sorted(spans):
        if start > copied or not pieces:
            pieces += [text[copied:start], MASK]
        copied = max(copied, end)
    return "".join([*pieces, text[copied:]]) if pieces else text
