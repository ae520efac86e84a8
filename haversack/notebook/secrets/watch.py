"""Report secrets to the parent as they become known, so that it masks them in outputs.

Runs in the kernel. Reported are: what `userdata.get` and `getpass` return, the drive's credentials, and the keys of
Kaggle key files that this process opens or that are in their usual places before or after a cell. `masking` also
recognizes tokens by their format; this module is for secrets that have no such format.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from haversack.notebook import channel

_reported: set[str] = set()


def report(*values: str) -> None:
    """Report these values to the parent as secrets; those already reported and "" are skipped."""
    new = [value for value in values if value and value not in _reported]
    if new:
        _reported.update(new)
        channel.send("secret", values=new)


def install(ipython: Any) -> None:
    """Report the answers of password prompts and the keys of Kaggle key files from now on. Does nothing outside a job.

    An audit hook (https://docs.python.org/3/library/audit_events.html) finds the key files that this process opens.
    """
    if channel.job_folder() is None:
        return
    kernel = getattr(ipython, "kernel", None)
    if kernel is not None:
        kernel.getpass = _reporting(kernel.getpass)
    opened: set[str] = set()
    sys.addaudithook(lambda event, arguments: _audit_open(event, arguments, opened))
    ipython.events.register("pre_run_cell", lambda info: _report_key_files(opened))
    ipython.events.register("post_run_cell", lambda result: _report_key_files(opened))


def _reporting(getpass: Callable[..., str]) -> Callable[..., str]:
    """Wrap `getpass` to report what it returns."""

    def wrapper(*arguments: Any, **options: Any) -> str:
        secret = getpass(*arguments, **options)
        report(secret)
        return secret

    return wrapper


def _audit_open(event: str, arguments: tuple[Any, ...], opened: set[str]) -> None:
    """Add a `kaggle.json` that is being opened to `opened`, and report its key.

    This runs on every audit event of the process, so it is quick, and it must not raise into the code that opens a
    file.
    """
    if event != "open" or not isinstance(arguments[0], str) or not arguments[0].endswith("kaggle.json"):
        return
    path = os.path.abspath(arguments[0])
    if path not in opened:
        opened.add(path)
        _report_key(Path(path))


def _report_key_files(opened: set[str]) -> None:
    """Report the keys of the key files in their usual places and of those in `opened`, which may have new contents."""
    folder = os.environ.get("KAGGLE_CONFIG_DIR")
    usual = [Path.home() / ".kaggle" / "kaggle.json", Path("kaggle.json")]
    if folder:
        usual.append(Path(folder) / "kaggle.json")
    for path in [*usual, *map(Path, opened)]:
        _report_key(path)


def _report_key(path: Path) -> None:
    """Report the key of the key file at `path`, if there is one."""
    try:
        key = json.loads(path.read_bytes())["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # missing, not written yet, or not a key file
    report(str(key))
