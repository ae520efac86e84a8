"""Cells executed in a kernel, one after the other, with their outputs put into the notebook as they come.

nbclient does the protocol; this adds what the kernel tells the job beside its outputs, and errors that say in one
sentence which cell failed and how.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Any

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbclient.util import ensure_async

from haversack.errors import CellFailed, JobError, KernelDied
from haversack.notebook import channel, hints
from haversack.notebook.screen import plain

_START_TIMEOUT = 120  # seconds; a first start compiles bytecode, on a slow disk for long
_LONGEST = 300
_LOOK = "The executed notebook has its traceback."


class Execution(NotebookClient):
    """One kernel and the notebook it executes.

    `listen` gets what the kernel tells the job (`channel`); `show` gets every piece of text that a cell writes;
    `source` turns a cell's source into what is sent to the kernel.
    """

    def __init__(
        self,
        notebook: Any,
        manager: Any,
        *,
        listen: Callable[[dict[str, Any]], None],
        show: Callable[[str], None],
        source: Callable[[str], str],
    ) -> None:
        quiet = logging.getLogger("haversack.notebook.nbclient")
        quiet.setLevel(logging.CRITICAL)
        super().__init__(
            notebook,
            km=manager,
            log=quiet,
            timeout=None,
            startup_timeout=_START_TIMEOUT,
            iopub_timeout=60,
            coalesce_streams=True,
            store_widget_state=True,
        )
        self.executed = 0
        self.interrupted = False
        self._listen = listen
        self._show = show
        self._source = source

    async def start(self, **options: Any) -> None:
        """Start the kernel. Raises `JobError` when it does not answer."""
        try:
            await self.async_start_new_kernel(**options)
            await self.async_start_new_kernel_client()
        except (RuntimeError, OSError) as error:
            reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
            raise JobError(
                f"The kernel did not start: {reason}.", "kernel.log in the job's folder says more."
            ) from error
        self.reset_execution_trackers()

    async def execute_one(self, index: int, number: int) -> None:
        """Execute the cell at `index`, which people count as `number`.

        Raises `CellFailed` when it raised and was not expected to, `KernelDied` when the kernel is gone, and `JobError`
        when somebody interrupted it.
        """
        if self.interrupted:
            raise JobError(f"The job was interrupted before cell {number}.")
        cell = self.nb.cells[index]
        original = cell.source
        cell.source = self._source(original)
        try:
            await self.async_execute_cell(cell, index, execution_count=self.executed + 1)
        except CellExecutionError as error:
            self.executed += 1
            if self.interrupted:
                raise JobError(f"The job was interrupted in cell {number}.") from None
            raise self._failed(cell, number, original, error) from None
        except DeadKernelError:
            raise KernelDied(*self._why_dead(number)) from None
        finally:
            cell.source = original
        self.executed += 1
        if self.interrupted:
            raise JobError(f"The job was interrupted in cell {number}.")

    def interrupt(self) -> None:
        """Ask the running cell to stop, as Ctrl-C does."""
        self.interrupted = True
        if self.km is not None and self.km.has_kernel:
            self._interrupting = asyncio.ensure_future(ensure_async(self.km.interrupt_kernel()))

    async def stop(self) -> None:
        """End the kernel and what it started in its own session."""
        manager = self.km
        if manager is None or not manager.has_kernel:
            return
        provisioner = manager.provisioner
        if self.kc is not None:
            self.kc.stop_channels()
        await ensure_async(manager.shutdown_kernel(now=self.kc is None))
        try:
            assert provisioner is not None
            await provisioner.send_signal(signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return  # the usual case: nothing is left of it

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] == channel.MESSAGE:
            self._listen(msg["content"])
            return None
        if msg["msg_type"] == "stream":
            self._show(msg["content"]["text"])
        return super().process_message(msg, cell, cell_index)

    def _failed(self, cell: Any, number: int, source: str, error: CellExecutionError) -> CellFailed:
        said = f"{error.ename}: {error.evalue}".strip().rstrip(":")
        advice = hints.advice(source, said)
        if advice:
            for output in cell.outputs:
                if output.output_type == "error":
                    output.traceback.append(f"haversack: {advice}")
        return CellFailed(f"Cell {number} failed: {_one_line(said)}.", advice or _LOOK)

    def _why_dead(self, number: int) -> tuple[str, str]:
        status = getattr(getattr(self.km.provisioner, "process", None), "returncode", None) if self.km else None
        # A wrapper such as bubblewrap passes a signal on as 128 + its number.
        number_of_signal = -status if status is not None and status < 0 else (status or 0) - 128
        if number_of_signal == signal.SIGKILL:
            return f"The kernel was killed in cell {number}.", "Most often memory ran out: use less in that cell."
        try:
            how = f"by {signal.Signals(number_of_signal).name}"
        except ValueError:
            how = f"with exit status {status}"
        return f"The kernel died in cell {number}, {how}.", "kernel.log in the job's folder may say why."


def _one_line(text: str) -> str:
    line = plain(text).rstrip(".")
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
