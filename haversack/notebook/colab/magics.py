"""Colab's magics that IPython lacks. Runs in the kernel.

`%shell COMMAND` and `%%shell` run bash, print its output, and return a `ShellResult`. They raise
`subprocess.CalledProcessError` if it fails, unless the cell starts with `%%shell --ignore-errors`. Its standard input
is empty: a job has no user to answer a prompt. `%tensorflow_version` only prints that it has no effect. `%uv` runs the
command `uv`, as `!uv` does; IPython's own runs a module `uv`, which a job's environment lacks.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from typing import Any

from haversack.notebook.colab import exit_status


@dataclass(frozen=True)
class ShellResult:
    """The result of `%shell`, with the names of Colab's.

    Attributes:
        args: the command.
        returncode: its exit status; a signal's number is negative.
        output: what it printed, standard error included.
    """

    args: str
    returncode: int
    output: str

    def check_returncode(self) -> None:
        """Raise `subprocess.CalledProcessError` if the command failed."""
        if self.returncode:
            raise subprocess.CalledProcessError(self.returncode, self.args, self.output)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show nothing: the output has been shown already."""


def register(ipython: Any) -> None:
    """Register the magics with this kernel's IPython shell."""

    def run_shell(line: str, cell: str | None = None) -> ShellResult:
        result = _shell(line if cell is None else cell)
        if cell is None or line.strip() != "--ignore-errors":
            result.check_returncode()
        elif result.returncode:
            exit_status.report(f"%shell {result.args.strip()}", result.returncode)
        return result

    def run_uv(line: str) -> None:
        ipython.system(f"uv {line}")

    ipython.register_magic_function(run_shell, "line_cell", "shell")
    if shutil.which("uv"):
        ipython.register_magic_function(run_uv, "line", "uv")
    ipython.register_magic_function(_tensorflow_version, "line", "tensorflow_version")


def _shell(command: str) -> ShellResult:
    """Run `command` with bash and print its output line by line. An interrupt is passed on to it as SIGINT."""
    process = subprocess.Popen(
        ["/bin/bash", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            print(line, end="", flush=True)
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGINT)
        raise
    finally:
        process.wait()
    return ShellResult(command, process.returncode, "".join(lines))


def _tensorflow_version(line: str) -> None:
    print("%tensorflow_version has no effect here: install the version you need with %pip install tensorflow==VERSION.")
