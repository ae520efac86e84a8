"""Colab's magics that IPython lacks. Runs in the kernel.

`%shell COMMAND` and `%%shell` run bash, print its output, and raise `subprocess.CalledProcessError` if it fails, unless
the cell starts with `%%shell --ignore-errors`. `%tensorflow_version` only prints that it has no effect.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

from haversack.notebook.colab import exit_status


def register(ipython: Any) -> None:
    """Register the magics with this kernel's IPython shell."""

    def run_shell(line: str, cell: str | None = None) -> None:
        ignore_errors = line.strip() == "--ignore-errors" if cell is not None else False
        _shell(line if cell is None else cell, check=not ignore_errors)

    ipython.register_magic_function(run_shell, "line_cell", "shell")
    ipython.register_magic_function(_tensorflow_version, "line", "tensorflow_version")


def _shell(command: str, *, check: bool) -> None:
    """Run `command` with bash and print its output line by line. An interrupt is passed on to it as SIGINT.

    With `check`, raises `subprocess.CalledProcessError` for an exit status other than 0, as Colab's `%shell` does.
    """
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
    try:
        for line in process.stdout:
            print(line, end="", flush=True)
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGINT)
        raise
    finally:
        process.wait()
    if not check and process.returncode:
        exit_status.report(f"%shell {command.strip()}", process.returncode)
    if check and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def _tensorflow_version(line: str) -> None:
    print("%tensorflow_version has no effect here: install the version you need with %pip install tensorflow==VERSION.")
