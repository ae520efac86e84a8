"""Which environment variables hold secrets, told from their names, and which of their values can be masked.

Such a variable may also hold what is no secret: a path, an address, a number, an ordinary word. To mask that would ruin
outputs in which it occurs, so these values are left alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_SECRET = re.compile(
    r"(?:^|_)TOKEN$|SECRET|(?:^|_)API_?KEY$|PASSWORD|PASSWD|PASSPHRASE|(?:^|_)(?:ACCESS|PRIVATE)_?KEY$", re.IGNORECASE
)
_ABOUT_A_SECRET = re.compile(r"_(?:FILE|PATH|DIR|FOLDER|NAME|URL|URI|HOST|ENABLED|LENGTH|TYPE)$", re.IGNORECASE)
_MIN_LENGTH = 8
# A value of letters of one case only, or of digits only, is a word or a number if it is shorter than this.
_MIN_LENGTH_OF_ONE_KIND = 12


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds a secret: `*_TOKEN`, `*SECRET*`, `*_API_KEY`, `*PASSWORD*` and the like."""
    return bool(_SECRET.search(name)) and not _ABOUT_A_SECRET.search(name)


def secret_values(environment: Mapping[str, str]) -> list[str]:
    """Return the values of the variables that hold secrets, without those that are ordinary words, numbers or paths."""
    return [value for name, value in environment.items() if is_secret(name) and _is_distinctive(value.strip())]


def _is_distinctive(value: str) -> bool:
    """Whether `value` is unlikely to occur in ordinary text."""
    if len(value) < _MIN_LENGTH or re.match(r"https?://[^@]*$", value) or os.path.exists(os.path.expanduser(value)):
        return False
    is_of_one_kind = value.isdecimal() or (value.isalpha() and (value.islower() or value.isupper() or value.istitle()))
    return not is_of_one_kind or len(value) >= _MIN_LENGTH_OF_ONE_KIND
