"""Values that become known as secrets while cells run, and are told to the job so that it masks them.

That is what `userdata.get` and `getpass` return, what signs in to the drive, and every Kaggle key file that this
process opens or that lies in its usual place after a cell. The job also masks by shape (`secrets`); this is for values
without one.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from haversack.notebook import channel

_announced: set[str] = set()


def announce(*values: str) -> None:
    """Tell the job that these values are secrets."""
    fresh = [value for value in values if value and value not in _announced]
    if fresh:
        _announced.update(fresh)
        channel.tell("secret", values=fresh)


def start(ipython: Any) -> None:
    """Watch this kernel: its password prompts, and Kaggle's key files before and after each cell."""
    if channel.job() is None:
        return
    kernel = getattr(ipython, "kernel", None)
    if kernel is not None:
        kernel.getpass = _announcing(kernel.getpass)
    opened: set[str] = set()
    sys.addaudithook(lambda event, arguments: _note_key_file(event, arguments, opened))
    ipython.events.register("pre_run_cell", lambda info: _look(opened))
    ipython.events.register("post_run_cell", lambda result: _look(opened))


def _announcing(ask: Callable[..., str]) -> Callable[..., str]:
    def getpass(*arguments: Any, **options: Any) -> str:
        secret = ask(*arguments, **options)
        announce(secret)
        return secret

    return getpass


def _note_key_file(event: str, arguments: tuple[Any, ...], opened: set[str]) -> None:
    """An audit hook: it must be quick, and must not raise into the code that opened a file."""
    if event != "open" or not isinstance(arguments[0], str) or not arguments[0].endswith("kaggle.json"):
        return
    path = os.path.abspath(arguments[0])
    if path not in opened:
        opened.add(path)
        _announce_key(Path(path))


def _look(opened: set[str]) -> None:
    folder = os.environ.get("KAGGLE_CONFIG_DIR")
    usual = [Path.home() / ".kaggle" / "kaggle.json", Path("kaggle.json")]
    if folder:
        usual.append(Path(folder) / "kaggle.json")
    for path in [*usual, *map(Path, opened)]:
        _announce_key(path)


def _announce_key(path: Path) -> None:
    try:
        key = json.loads(path.read_bytes())["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # not there (yet), or no key file: there is nothing to mask
    announce(str(key))
