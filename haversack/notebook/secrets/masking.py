"""Replace secrets by `***` in everything that a job writes or shows.

Runs in the process of `haversack run`. Two things are masked: known secret values, also as JSON, HTML, URLs, `repr` and
base64 spell them; and strings in the format of well-known services' tokens. Known values of fewer than 6 characters are
not masked, because they also occur in ordinary text. Images, audio, video and PDF are not searched.

`sessions.JobSessions` masks what it saves and shows: the executed notebook and its cell outputs, and the log.
"""

from __future__ import annotations

import base64
import html
import json
import re
import threading
from typing import Any
from urllib.parse import quote

MASK = "***"
_MIN_LENGTH = 6
# Texts of at least this many characters are cached with their masked form.
_MIN_CACHED_LENGTH = 1000

_QUOTE = r"""(?:\\?["']|&quot;|&\#34;|&\#39;|&\#x27;)"""
# Token formats. The secret is the named group that matched; in a format without a named group, the whole match.
_TOKENS = re.compile(
    "|".join(
        [
            # kaggle.json, and other key files of the form "key": "32 hexadecimal digits"
            rf"(?<=key){_QUOTE}?\s*[:=]\s*{_QUOTE}?(?P<key>[0-9a-fA-F]{{32}}(?:[0-9a-fA-F]{{8}})?)\b",
            rf"(?i:wandb_api_key|kaggle_key|api[_-]?key){_QUOTE}?\]?\s*[:=]\s*{_QUOTE}?(?P<named>[0-9a-fA-F]{{32,40}})\b",
            r"\bya29\.[\w-]{20,}",
            r"\bAIza[\w-]{35}",
            r"\bgh[pousr]_[A-Za-z0-9]{20,}",
            r"\bgithub_pat_\w{22,}",
            r"\bhf_[A-Za-z0-9]{20,}",
            r"\bsk-[\w-]{20,}",
            r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
            r"\bxox[abprs]-[\w-]{10,}",
            r"\bKGAT_[A-Za-z0-9]{20,}",
            r"(?i:\bBearer)\s+(?P<bearer>[\w.~+/=-]{20,})",
            r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[\s\S]*?(?:-----END (?:[A-Z]+ )*PRIVATE KEY-----|\Z)",
        ]
    )
)


class Secrets:
    """The known secret values. Thread-safe; all fields are guarded by `_lock`.

    The main thread masks outputs; the thread of `KernelLog` masks the kernel's log.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        # Long text → masked text. Each save masks all outputs again; this searches each only once per set of secrets.
        self._cache: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Secrets({len(self._values)} known)"

    def add(self, *values: str | None) -> None:
        """Add secret values, to be masked from now on.

        Of a value of several lines, each line is a secret too. None, "" and values of fewer than 6 characters are
        ignored.
        """
        texts = {text.strip() for value in values if value for text in (value, *value.splitlines())}
        with self._lock:
            new = {text for text in texts if len(text) >= _MIN_LENGTH} - self._values
            if new:
                self._values |= new
                self._pattern = None
                self._cache.clear()

    def mask(self, text: str, *, cached: bool = True) -> str:
        """Return `text` with every known secret and every string in a known token format replaced by `***`.

        With `cached`, a long text is kept until the next new secret, with its masked form, because it will be masked
        again.
        """
        with self._lock:
            if text in self._cache:
                return self._cache[text]
            masked = self._mask_uncached(text)
            if cached and len(text) >= _MIN_CACHED_LENGTH:
                self._cache[text] = masked
            return masked

    def _mask_uncached(self, text: str) -> str:
        """Mask `text` without the cache. The caller holds `_lock`."""
        if self._values:
            if self._pattern is None:
                spellings = {spelling for value in self._values for spelling in _spellings(value)}
                # The longest first, because one secret may be a prefix of another.
                self._pattern = re.compile("|".join(map(re.escape, sorted(spellings, key=len, reverse=True))))
            text = self._pattern.sub(MASK, text)
        return _TOKENS.sub(_mask_token, text)

    def mask_json(self, value: Any) -> Any:
        """Return a copy of a JSON value, such as a notebook, with all strings and field names masked.

        The values of fields named by the MIME type of an image, audio, video or PDF are kept as they are, except SVG.
        """
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, list):
            return [self.mask_json(item) for item in value]
        if isinstance(value, dict):
            return type(value)(
                {self.mask(name): item if _is_binary(name) else self.mask_json(item) for name, item in value.items()}
            )
        return value


def _spellings(value: str) -> set[str]:
    """Return `value` as plain text, JSON, HTML, URLs, `repr` and base64 write it."""
    return {
        value,
        json.dumps(value)[1:-1],
        html.escape(value),
        quote(value, safe=""),
        repr(value)[1:-1],
        base64.b64encode(value.encode()).decode(),
    }


def _mask_token(match: re.Match[str]) -> str:
    for group, secret in match.groupdict().items():
        if secret:
            start = match.start(group) - match.start()
            return match.group()[:start] + MASK + match.group()[start + len(secret) :]
    return MASK


def _is_binary(mime: str) -> bool:
    """Whether a field of this name holds base64 of a file. SVG is text, so it is masked."""
    return (mime.startswith(("image/", "audio/", "video/")) and mime != "image/svg+xml") or mime == "application/pdf"
