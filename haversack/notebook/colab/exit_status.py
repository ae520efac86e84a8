"""Report to the parent which shell commands of a cell failed. Runs in the kernel.

A `!` line that fails does not end its cell, so without a report nobody learns of it. Reported are `!` lines and what
IPython runs like them, such as `%pip`; `x = !command`; cells such as `%%bash --no-raise-error`; and commands whose
failure ended the cell with `subprocess.CalledProcessError`, such as those of `%%bash` and `%shell`. Not reported is a
`CalledProcessError` that the notebook catches, and a script in the background (`%%bash --bg`).
"""

from __future__ import annotations

import functools
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from haversack.notebook import channel

_QUIETLY = "--no-raise-error"


def install(ipython: Any) -> None:
    """Report failed commands of this kernel's cells from now on. Does nothing outside a job."""
    if channel.job_folder() is None:
        return
    import ipykernel.zmqshell
    import IPython.core.interactiveshell

    zmqshell: Any = ipykernel.zmqshell
    shell: Any = IPython.core.interactiveshell

    # The shell's `system` expands variables of the frame that called it, so it cannot be wrapped. This function gets
    # the expanded command from it.
    run = getattr(zmqshell, "system", None)
    if run is not None and not hasattr(run, "__wrapped__"):
        zmqshell.system = _reporting(run)
    if hasattr(shell, "getoutput"):
        shell.getoutput = _output_of
    _report_scripts(ipython.magics_manager)
    ipython.events.register("post_run_cell", _report_raised)


def report(command: str, status: int) -> None:
    """Report that `command` ended with `status`; a signal's number is negative."""
    channel.send("shell", command=command, status=status)


def _reporting(run: Callable[[str], int]) -> Callable[[str], int]:
    """Wrap `run`, which executes a command and returns its status, to report every status but 0."""

    @functools.wraps(run)
    def system(command: str) -> int:
        status = run(command)
        if status:
            _report_line(command, status)
        return status

    return system


def _report_line(command: str, status: int) -> None:
    report(f"!{command.replace(sys.executable, 'python', 1)}", status)


def _output_of(command: str) -> str:
    """Return what `command` prints on both streams, as IPython's `getoutput` does, and report its status unless 0."""
    from IPython.utils._process_common import process_handler
    from IPython.utils.encoding import DEFAULT_ENCODING

    status = 0

    def read(process: subprocess.Popen[bytes]) -> bytes:
        nonlocal status
        output = process.communicate()[0]
        status = process.returncode
        return output

    printed = process_handler(command, read, subprocess.STDOUT) or b""
    if status:
        _report_line(command, status)
    return printed.decode(DEFAULT_ENCODING, errors="replace")


def _report_scripts(magics: Any) -> None:
    """Report scripts such as `%%bash` that fail with `--no-raise-error`. The other magics run them by this one.

    The class is changed, because IPython makes its object when a cell first uses it; older versions made it before.
    """
    from IPython.core.magics.script import ScriptMagics

    scripts: Any = ScriptMagics
    run = scripts.shebang
    if run.__code__.co_filename == __file__:
        return

    @functools.wraps(run)  # its options come along
    def shebang(self: Any, line: str, cell: str) -> Any:
        if _QUIETLY not in line.split():
            return run(self, line, cell)
        try:
            return run(self, line.replace(_QUIETLY, ""), cell)
        except subprocess.CalledProcessError as error:
            return report(cell, error.returncode or -signal.SIGKILL)

    scripts.shebang = shebang
    if made := magics.registry.get(scripts.__name__):
        magics.magics["cell"]["script"] = made.shebang


def _report_raised(result: Any) -> None:
    """Report the command whose failure ended the cell, if one did."""
    error = getattr(result, "error_in_exec", None)
    if isinstance(error, subprocess.CalledProcessError):
        command = error.cmd
        if isinstance(command, str | bytes | os.PathLike):
            text = os.fsdecode(command)
        else:
            text = shlex.join(map(os.fsdecode, command))
        report(text, error.returncode)
