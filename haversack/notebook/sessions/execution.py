"""Cells executed in a kernel, one after the other, with their outputs put into the notebook as they come.

nbclient does the protocol; this adds what the kernel tells the job beside its outputs, and errors that say in one
sentence which cell failed and how.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbclient.util import ensure_async

from haversack.errors import CellFailed, JobError, KernelDied
from haversack.notebook import channel
from haversack.notebook.colab import hints
from haversack.notebook.record.screen import plain
from haversack.notebook.sessions.exit_cause import Witness

_START_TIMEOUT = 120  # seconds; a first start compiles bytecode, on a slow disk for long
_ASKED = 60
_LONGEST = 300
_LOOK = "The executed notebook has its traceback."


class Execution(NotebookClient):
    """One kernel and the notebook it executes.

    `listen` gets what the kernel tells the job (`channel`); `show` gets every piece of text that a cell writes;
    `source` turns a cell's source into what is sent to the kernel; `witness` knows why a kernel is gone. `heard` is
    when the running cell was last heard of (`time.monotonic`), None between cells.
    """

    def __init__(
        self,
        notebook: Any,
        manager: Any,
        *,
        listen: Callable[[dict[str, Any]], None],
        show: Callable[[str], None],
        source: Callable[[str], str],
        witness: Witness,
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
        self.heard: float | None = None
        self.why: Literal["memory", "died"] = "died"
        self._witness = witness
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
        self.heard = time.monotonic()
        try:
            await self.async_execute_cell(cell, index, execution_count=number)
        except CellExecutionError as error:
            self.executed += 1
            if self.interrupted:
                raise JobError(f"The job was interrupted in cell {number}.") from None
            raise self._failed(cell, number, original, error) from None
        except DeadKernelError:
            if self.interrupted:
                raise JobError(f"The job was interrupted in cell {number}.") from None
            raise self._died(number) from None
        finally:
            self.heard = None
            cell.source = original
        self.executed += 1
        if self.interrupted:
            raise JobError(f"The job was interrupted in cell {number}.")

    async def ask(self, code: str) -> str:
        """Execute `code` that is not the notebook's, shown to nobody; returns what it raised, "" for nothing."""
        client: Any = self.kc
        reply = await ensure_async(client.execute(code, silent=True, store_history=False, reply=True, timeout=_ASKED))
        content = reply["content"]
        return "" if content["status"] == "ok" else str(content.get("evalue") or content["status"])

    def interrupt(self) -> None:
        """Ask the running cell to stop, as Ctrl-C does."""
        self.interrupted = True
        if self.km is not None and self.km.has_kernel:
            self._interrupting = asyncio.ensure_future(ensure_async(self.km.interrupt_kernel()))

    async def kill(self) -> None:
        """SIGKILL the kernel's whole process group; the running cell is over at once."""
        if self.km is not None and self.km.has_kernel and self.km.provisioner is not None:
            with suppress(ProcessLookupError, PermissionError):
                await self.km.provisioner.send_signal(signal.SIGKILL)
        if self.task_poll_for_reply is not None:
            # What nbclient does itself when, once a second, it sees that the kernel is gone.
            self.task_poll_for_reply.cancel()

    async def stop(self) -> None:
        """End the kernel and what it started in its own session."""
        manager = self.km
        if manager is None or not manager.has_kernel:
            return
        if self.kc is not None:
            self.kc.stop_channels()
        provisioner = manager.provisioner
        await ensure_async(manager.shutdown_kernel(now=self.kc is None))
        try:
            assert provisioner is not None
            await provisioner.send_signal(signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return  # the usual case: nothing is left of it

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        if self.heard is not None:
            self.heard = time.monotonic()
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

    def _died(self, number: int) -> KernelDied:
        status = getattr(getattr(self.km.provisioner, "process", None), "returncode", None) if self.km else None
        death = self._witness.tell(status, f"in cell {number}")
        self.why = death.why
        return KernelDied(f"The kernel {death.how}.", death.next_step)


def _one_line(text: str) -> str:
    line = plain(text).rstrip(".")
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
