"""The hub that all clients are measured against: its calls wait as on a network, and are counted from its log."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from google.oauth2.credentials import Credentials
from googleapiclient.discovery import build_from_document
from googleapiclient.discovery_cache import get_static_doc

# A file's bytes may be here before the hub has written that they were sent.
_LOGGED = 0.2
_SETTLED = 3.0
_SNAPSHOT = ".haversack-index.jsonl.gz"


@dataclass(frozen=True)
class Server:
    """A hub that answers; `root` is the folder it serves, `scratch` one for what its clients keep."""

    root: Path
    scratch: Path
    url: str
    token: str
    proxy: str
    authority: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def drive(self) -> Path:
        return self.root / "My Drive"

    def timed(self, work: Callable[[], Any]) -> dict[str, Any]:
        """How many seconds `work` took, and which calls were answered meanwhile."""
        before = self.log.stat().st_size
        begin = time.perf_counter()
        work()
        seconds = time.perf_counter() - begin
        time.sleep(_LOGGED)
        with open(self.log) as log:
            log.seek(before)
            routes = Counter(json.loads(line)["route"] for line in log)
        return {"seconds": seconds, "calls": routes.total(), "routes": dict(routes)}

    def google(self) -> Any:
        """Google's own client of it."""
        document = json.loads(get_static_doc("drive", "v3"))
        document["rootUrl"] = self.url + "/"
        return build_from_document(document, credentials=Credentials(token=self.token))

    def connection(self) -> http.client.HTTPConnection:
        """A bare connection to it."""
        return http.client.HTTPConnection(str(urlsplit(self.url).netloc))

    def id_of(self, name: str) -> str:
        """The id of the one file of that name, once the hub has taken it in."""
        files = self.google().files()
        while not (found := files.list(q=f"name = '{name}'", fields="files(id)").execute()["files"]):
            time.sleep(0.2)
        return str(found[0]["id"])

    def settle(self) -> None:
        """Wait until the hub has taken in all that lies in its folder: nothing changes any more."""
        changes, before = self.google().changes(), ""
        while (now := changes.getStartPageToken().execute()["startPageToken"]) != before:
            before = now
            time.sleep(_SETTLED)


@contextmanager
def serving(root: Path, latency: str, *, known: str) -> Iterator[Server]:
    """A hub over `root` that knows all of it, the file `known` too, but for a snapshot of an earlier client's."""
    (root / "My Drive" / _SNAPSHOT).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix="run-") as scratch:
        server = _started(root, Path(scratch), latency)
        try:
            server.id_of(known)
            server.settle()
            yield server
        finally:
            server.process.terminate()
            server.process.wait()


def _started(root: Path, scratch: Path, latency: str) -> Server:
    token, state, log = secrets.token_urlsafe(24), scratch / "hub.json", scratch / "calls.jsonl"
    command = [sys.executable, "-m", "haversack", "hub", "--root", str(root), "--port", "0", "--tls"]
    environment = {**os.environ, "HAVERSACK_TOKEN": token, "HAVERSACK_DATA": str(scratch / "hub")}
    process = subprocess.Popen(
        [*command, "--latency", latency, "--log", str(log), "--state", str(state)],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    while not state.exists():
        if process.poll() is not None:
            raise SystemExit("The hub ended before it answered.")
        time.sleep(0.02)
    told = json.loads(state.read_text())
    return Server(root, scratch, told["url"], token, told["proxy"], told["ca"], log, process)
