"""The process that carries out a kernel's actions: `python -m haversack.notebook.clients.serving`.

It runs in haversack's own Python, in the kernel's mount namespace and working directory. Each line of its standard
input is a request, `{"action": name, "arguments": {…}}`; each is answered by one line on its standard output,
`{"result": …}` or `{"error": …}` with the record of `failures`. It exits at once when its input closes: its kernel is
gone then, and the next session must not meet an upload of this one.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from typing import Any

from haversack.errors import HaversackError
from haversack.notebook.clients import actions, failures


def main() -> None:
    """Answer requests until the input closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not be read as an answer
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # `os._exit` flushes nothing
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    while True:
        print(json.dumps(_answer(json.loads(requests.get()))), file=answers, flush=True)


def _read(requests: queue.SimpleQueue[str]) -> None:
    """Run in a thread: queue the requests, and end the process when the input closes, whatever it is doing."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": actions.ACTIONS[request["action"]](**request["arguments"])}
    except Exception as error:  # noqa: BLE001 - whatever it is, the kernel raises it
        if not isinstance(error, HaversackError | OSError | ValueError):
            traceback.print_exc()
        return {"error": failures.encode(error)}


if __name__ == "__main__":
    main()
