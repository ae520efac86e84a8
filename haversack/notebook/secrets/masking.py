"""Masking: what a job writes and shows has `***` where a secret stood.

Two nets: values that are known to be secret, in every spelling that JSON, HTML and URLs give them, and the shapes that
well-known services give their tokens. A known value of fewer than 6 characters is left alone, since it would tear holes
into ordinary text. Pictures are not looked into.
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
_SHORTEST = 6
_LONG = 1000

_QUOTE = r"""(?:\\?["']|&quot;|&\#34;|&\#39;|&\#x27;)"""
# Each shape has the secret in a group named `s`, or is secret as a whole.
_SHAPES = re.compile(
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
    """The secrets known so far. May be used by several threads: the kernel's log is cleaned in one of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        # Long outputs are masked again at each save; a text is only searched once for one set of secrets.
        self._cleaned: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Secrets({len(self._values)} known)"

    def add(self, *values: str | None) -> None:
        """Remember values that are to be masked from now on; a value of several lines also line by line."""
        texts = {text.strip() for value in values if value for text in (value, *value.splitlines())}
        with self._lock:
            self._values |= {text for text in texts if len(text) >= _SHORTEST}
            self._pattern = None
            self._cleaned.clear()

    def clean(self, text: str) -> str:
        """`text` with every secret masked."""
        with self._lock:
            if text in self._cleaned:
                return self._cleaned[text]
            cleaned = self._mask(text)
            if len(text) >= _LONG:
                self._cleaned[text] = cleaned
            return cleaned

    def _mask(self, text: str) -> str:
        if self._values:
            if self._pattern is None:
                spellings = {spelling for value in self._values for spelling in _spellings(value)}
                # The longest first: a secret may begin with another one.
                self._pattern = re.compile("|".join(map(re.escape, sorted(spellings, key=len, reverse=True))))
            text = self._pattern.sub(MASK, text)
        return _SHAPES.sub(_mask_shape, text)

    def clean_all(self, value: Any) -> Any:
        """A copy of a JSON value with every string in it masked, names of fields included; pictures are kept."""
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, list):
            return [self.clean_all(item) for item in value]
        if isinstance(value, dict):
            return type(value)(
                {self.clean(name): item if _is_picture(name) else self.clean_all(item) for name, item in value.items()}
            )
        return value


def _spellings(value: str) -> set[str]:
    return {
        value,
        json.dumps(value)[1:-1],
        html.escape(value),
        quote(value, safe=""),
        repr(value)[1:-1],
        base64.b64encode(value.encode()).decode(),
    }


def _mask_shape(match: re.Match[str]) -> str:
    for group, secret in match.groupdict().items():
        if secret:
            start = match.start(group) - match.start()
            return match.group()[:start] + MASK + match.group()[start + len(secret) :]
    return MASK


def _is_picture(mime: str) -> bool:
    return (mime.startswith(("image/", "audio/", "video/")) and mime != "image/svg+xml") or mime == "application/pdf"
