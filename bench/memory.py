"""What training on a large archive keeps in memory: `python bench/memory.py ARCHIVE BATCHES [cached]`; prints JSON.

So many batches are taken from the archive; `cached` ones again from the decoded pixels, by a second reader of the same
process. Resident is the most that the process ever had (`VmHWM`, proc_pid_status(5)), in MB, without the batches that
are under way; of it, anonymous memory is what the system cannot take back by itself.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

BATCH, SIDE = 64, 224
# Those begun ahead, the one that was asked for, and the one before it, of which the caller lets go next.
UNDER_WAY = 5


def taken(archive: str, count: int, cache: str | None) -> float:
    """Seconds until the data set was opened; then `count` batches are taken."""
    import haversack

    started = time.perf_counter()
    form: dict[str, Any] = {"size": (SIDE, SIDE), "channels": 1, "batch_size": BATCH, "dtype": "uint8", "cache": cache}
    images = haversack.dataset(archive).images(**form)
    opened = time.perf_counter() - started
    for step in range(count):
        images.batch(0, step)
    images.close()
    return opened


def main() -> None:
    archive, count, cached = sys.argv[1], int(sys.argv[2]), "cached" in sys.argv
    opened = taken(archive, count, "disk" if cached else None)
    if cached:
        taken(archive, count, "disk")
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    status = {line[0].rstrip(":"): int(line[1]) / 1e3 * 1.024 for line in lines if line[-1] == "kB"}
    batches = UNDER_WAY * BATCH * SIDE * SIDE / 1e6
    resident, anonymous = status["VmHWM"] - batches, status["RssAnon"]
    print(json.dumps({"MB resident": resident, "MB anonymous at the end": anonymous, "seconds to open": opened}))


if __name__ == "__main__":
    main()
