"""The command `uv` of a job's cells: uv itself, for the job's environment and with pip's configuration.

Runs in a child process of the kernel. Colab's notebooks write `!uv pip install --system NAME`, because Colab's packages
are the system's; here that option would reach past the environment to the machine's Python, so it is left out. What
`uv pip` changes is recorded as by `pip_command`. Every other command replaces this process by uv (exec).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from haversack.errors import InputError
from haversack.packages import pip_command, uv_pip
from haversack.packages.pip_settings import uv_settings

_CHANGING = ("install", "uninstall", "sync")


def main() -> None:
    """Run uv with this process's arguments. Exits with uv's status, or with status 127 where there is no uv."""
    program = uv_pip.uv_program()
    if program is None:
        print("uv: command not found. Install it in an earlier cell: !pip install -q uv", file=sys.stderr)
        sys.exit(127)
    words = in_environment(sys.argv[1:])
    try:
        settings = uv_settings().variables
    except InputError as error:
        sys.exit(f"uv: {error}")
    if not _changes_environment(words):
        os.execve(program, [program, *words], uv_pip.variables(settings))
    outcome = uv_pip.run([program, *words], settings, lambda line: print(line, file=sys.stderr, flush=True))
    pip_command.record(outcome.changes)
    sys.exit(outcome.status if outcome.status >= 0 else 128 - outcome.status)


def in_environment(words: Sequence[str]) -> list[str]:
    """Return uv's arguments `words` so that `uv pip` means the environment of the job."""
    return [word for word in words if word != "--system"] if words[:1] == ["pip"] else list(words)


def _changes_environment(words: Sequence[str]) -> bool:
    """Whether uv changes the environment of this process, and not a folder or another environment."""
    others = {"--target", "-t", "--prefix", "--python", "-p", "--dry-run"}
    named = {word.partition("=")[0] for word in words}
    changes = words[:1] == ["pip"] and words[1:2] and words[1] in _CHANGING and not named & others
    return bool(changes) and os.environ.get("VIRTUAL_ENV") == sys.prefix


if __name__ == "__main__":
    main()
