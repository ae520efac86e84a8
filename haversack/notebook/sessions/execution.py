"""Execute cells in a kernel, one after the other, and add their outputs to the notebook as they arrive.

Runs in the process of `haversack run`. nbclient implements the Jupyter protocol
(https://jupyter-client.readthedocs.io/en/stable/messaging.html). `Execution` adds the messages of `channel` and errors
that name the failed cell in one sentence.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbclient.util import ensure_async

from haversack.errors import CellFailed, Interrupted, JobError, KernelDied
from haversack.notebook import channel
from haversack.notebook.colab import hints
from haversack.notebook.record.screen import plain
from haversack.notebook.sessions.exit_cause import ExitCauseFinder
from haversack.notebook.sessions.output_text import CutText, StreamText
from haversack.notebook.sessions.shell_failure import ShellFailure, named_cause, possible_cause
from haversack.packages.drift import Drift

_START_TIMEOUT = 120  # seconds; the first start compiles bytecode, which takes long on a slow disk
_SILENT_TIMEOUT = 60  # seconds
_MAX_ERROR_LENGTH = 300  # characters
_SEE_TRACEBACK = "The executed notebook has its traceback."


class Execution(NotebookClient):
    """One kernel and the notebook that it executes. Used on the parent's event loop only.

    Attributes:
        is_ready: whether the kernel has answered; before that it can only be killed.
        interrupted: whether `interrupt` was called.
        last_message_at: when the running cell's last message arrived or, before one did, when the cell started
            (`time.monotonic`); None between cells.
        death: why the kernel died, "memory" (the OOM killer) or "died"; set when `execute_one` raises `KernelDied`,
            before that "died".
        left_out: sentences that say what was cut from the last cell's outputs.
    """

    def __init__(
        self,
        notebook: Any,
        manager: Any,
        *,
        on_message: Callable[[dict[str, Any]], None],
        on_output: Callable[[str], None],
        rewrite: Callable[[str], str],
        mask: Callable[[str], str],
        output_limit: int,
        shell_failures: Sequence[ShellFailure],
        drift: Drift,
        exit_cause: ExitCauseFinder,
    ) -> None:
        """Prepare the execution; `start` starts the kernel.

        Args:
            notebook: an nbformat node; outputs and execution counts are written into its cells.
            manager: an `AsyncKernelManager` that has not started its kernel.
            on_message: called with the content of each message of `channel`.
            on_output: called with each piece of text that a cell writes to its standard output or error, unmasked.
            rewrite: returns the source to execute for a cell's source.
            mask: returns a text with its secrets replaced.
            output_limit: the most characters that are kept of a text output.
            shell_failures: the shell commands that have failed so far; the caller appends to it while cells run.
            drift: judges whether an error comes of a library's newer version.
            exit_cause: finds out why the kernel died.
        """
        quiet = logging.getLogger("haversack.notebook.nbclient")
        quiet.setLevel(logging.CRITICAL)
        super().__init__(
            notebook,
            km=manager,
            log=quiet,
            timeout=None,
            startup_timeout=_START_TIMEOUT,
            iopub_timeout=60,
            coalesce_streams=False,  # `output` does it, in linear time
            store_widget_state=True,
        )
        self.is_ready = False
        self.interrupted = False
        self.last_message_at: float | None = None
        self.death: Literal["memory", "died"] = "died"
        self._exit_cause = exit_cause
        self._on_message = on_message
        self._on_output = on_output
        self._rewrite = rewrite
        self._mask = mask
        self._output_limit = output_limit
        self._shell_failures = shell_failures
        self._drift = drift
        self.left_out: list[str] = []
        # The running cell's streams by name: each one's output in the notebook, and its text.
        self._streams: dict[str, tuple[Any, StreamText]] = {}

    async def start(self, **options: Any) -> None:
        """Start the kernel and wait until it answers. `options` are those of `AsyncKernelManager.start_kernel`.

        Raises `JobError` if the kernel does not start.
        """
        try:
            await self.async_start_new_kernel(**options)
            await self.async_start_new_kernel_client()
        except (RuntimeError, OSError) as error:
            reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
            raise JobError(
                f"The kernel did not start: {reason}.", "See kernel.log in the job's folder for details."
            ) from error
        self.reset_execution_trackers()
        self.is_ready = True

    async def execute_one(self, index: int, number: int) -> None:
        """Execute the cell at `index` of the notebook's cells, and add its outputs to the notebook.

        `number` is the cell's number in messages and its execution count. Raises `CellFailed` if the cell raises and is
        not tagged `raises-exception`, `KernelDied` if the kernel dies, and `Interrupted` if `interrupt` is or was
        called.
        """
        if self.interrupted:
            raise Interrupted(f"The job was interrupted before cell {number}.")
        cell = self.nb.cells[index]
        original = cell.source
        cell.source = self._rewrite(original)
        self.last_message_at = time.monotonic()
        self._streams, self.left_out = {}, []
        try:
            await self.async_execute_cell(cell, index, execution_count=number)
        except CellExecutionError as error:
            if self.interrupted:
                raise Interrupted(f"The job was interrupted in cell {number}.") from None
            raise self._cell_failed(cell, number, original, error) from None
        except DeadKernelError:
            if self.interrupted:
                raise Interrupted(f"The job was interrupted in cell {number}.") from None
            raise self._kernel_died(number) from None
        finally:
            self.last_message_at = None
            cell.source = original
            self._finish_outputs(cell.outputs)
        if self.interrupted:
            raise Interrupted(f"The job was interrupted in cell {number}.")

    async def execute_silently(self, code: str) -> str:
        """Execute code that is not part of the notebook, without history or outputs.

        Return the message of the exception that it raised; "" if it raised none. Raises `TimeoutError` if it does not
        end within 60 s.
        """
        client: Any = self.kc
        request = client.execute(code, silent=True, store_history=False, reply=True, timeout=_SILENT_TIMEOUT)
        content = (await ensure_async(request))["content"]
        return "" if content["status"] == "ok" else str(content.get("evalue") or content["status"])

    def interrupt(self) -> None:
        """Interrupt the running cell, which gets a `KeyboardInterrupt`; from now on `execute_one` raises `Interrupted`.

        Returns at once. A kernel that is not started gets no message.
        """
        self.interrupted = True
        if self.km is not None and self.km.has_kernel:
            # The attribute keeps a reference, since the event loop holds only a weak one.
            self._interrupting = asyncio.ensure_future(ensure_async(self.km.interrupt_kernel()))

    async def kill(self) -> None:
        """Send SIGKILL to the kernel's process group, so that a running `execute_one` raises at once."""
        if self.km is not None and self.km.has_kernel and self.km.provisioner is not None:
            with suppress(ProcessLookupError, PermissionError):
                await self.km.provisioner.send_signal(signal.SIGKILL)
        if self.task_poll_for_reply is not None:
            # nbclient polls once a second whether the kernel is alive, and cancels this task when it is not.
            self.task_poll_for_reply.cancel()

    async def stop(self) -> None:
        """Shut the kernel down, then kill what is left of its process group. Does nothing if no kernel runs."""
        manager = self.km
        if manager is None or not manager.has_kernel:
            return
        if self.kc is not None:
            self.kc.stop_channels()
        provisioner = manager.provisioner
        await ensure_async(manager.shutdown_kernel(now=not self.is_ready))
        try:
            assert provisioner is not None
            await provisioner.send_signal(signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return  # the usual case: no process of the group is left

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        """Handle one iopub message of the running cell; nbclient calls this.

        A message of `channel` goes to `on_message` only. Text of a stream goes to `on_output` too; nbclient adds
        outputs to the cell.
        """
        if self.last_message_at is not None:
            self.last_message_at = time.monotonic()
        if msg["msg_type"] == channel.MESSAGE_TYPE:
            self._on_message(msg["content"])
            return None
        if msg["msg_type"] == "stream":
            self._on_output(msg["content"]["text"])
        return super().process_message(msg, cell, cell_index)

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        """Add one output to the running cell's; nbclient calls this. All text of a stream becomes one output."""
        added: Any = super().output(outs, msg, display_id, cell_index)
        if added is None:
            return None
        if len(outs) == 1:
            # The first output, or the first one after the cell's output was cleared.
            self._streams = {}
        if added.output_type == "stream":
            if added.name in self._streams:
                outs.pop()
            else:
                self._streams[added.name] = (added, StreamText(self._output_limit))
            stream, text = self._streams[added.name]
            text.append(added.text)
            return stream
        return added

    def _finish_outputs(self, outputs: list[Any]) -> None:
        """Write the streams' text into `outputs`, cut what is too long, and put standard output before error.

        Their messages come in any order, so the order of two neighbours says nothing.
        """
        for index, output in enumerate(outputs):
            stream, written = self._streams.get(output.get("name", ""), (None, None))
            if stream is not None and written is not None and stream is output:
                stream.text = self._text(written)
            elif isinstance(shown := output.get("data", {}).get("text/plain"), str):
                text = CutText(self._output_limit)
                text.append(shown)
                output.data["text/plain"] = self._text(text)
            if index and [getattr(one, "name", "") for one in outputs[index - 1 : index + 1]] == ["stderr", "stdout"]:
                outputs[index - 1 : index + 1] = [output, outputs[index - 1]]

    def _text(self, text: CutText) -> str:
        """Return the text of one output, and add the sentence about what was left out to `left_out`."""
        whole, sentence = text.text(self._mask)
        if sentence:
            self.left_out.append(sentence)
        return whole

    def _cell_failed(self, cell: Any, number: int, source: str, error: CellExecutionError) -> CellFailed:
        """Return the error for a cell that raised, and append any advice to the traceback in its output."""
        summary = f"{error.ename}: {error.evalue}".strip().rstrip(":")
        raised = [output for output in cell.outputs if output.output_type == "error"]
        traceback = plain(" ".join(line for output in raised for line in output.traceback))
        advice = " ".join(self._advice(number, source, error.ename, summary, traceback))
        for output in raised if advice else ():
            output.traceback.append(f"haversack: {advice}")
        return CellFailed(f"Cell {number} failed: {_one_line(self._mask(summary))}.", advice or _SEE_TRACEBACK)

    def _advice(self, number: int, source: str, name: str, summary: str, traceback: str) -> list[str]:
        """Return sentences of advice for the exception `name` in cell `number`; `summary` is its "Name: message".

        A shell command that failed before comes first.
        """
        before = [failure for failure in self._shell_failures if failure.cell <= number]
        if name == "CalledProcessError" and before and before[-1].cell == number:
            before.pop()  # the exception itself
        hint = self._drift.advice(summary, traceback) or hints.advice(source, summary)
        if cause := named_cause(before, source, summary):
            return [cause.advice(number)]
        cause = possible_cause(before, summary)
        return [sentence for sentence in (cause.advice(number) if cause else "", hint) if sentence]

    def _kernel_died(self, number: int) -> KernelDied:
        """Return the error for a kernel that died in cell `number`, and set `death`."""
        status = getattr(getattr(self.km.provisioner, "process", None), "returncode", None) if self.km else None
        cause = self._exit_cause.find(status, f"in cell {number}")
        self.death = cause.why
        return KernelDied(f"The kernel {cause.how}.", cause.next_step)


def _one_line(text: str) -> str:
    """Return `text` on one line of at most 300 characters, without control characters and a final full stop."""
    line = plain(text).rstrip(".")
    return line if len(line) <= _MAX_ERROR_LENGTH else line[: _MAX_ERROR_LENGTH - 1] + "…"
