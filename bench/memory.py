"""What training on a large archive keeps in memory: `python bench/memory.py ARCHIVE BATCHES [disk]`; prints JSON.

So many batches are taken from the archive; with `disk` decoded pixels are kept, and read again by the next process.
Resident is the most that the process ever had (`VmHWM`, proc_pid_status(5)), in MB, without the batches that are under
way; of it, anonymous memory is what the system cannot take back by itself.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

BATCH, SIDE = 64, 224
# Those begun ahead, the one that was asked for, and the one before it, of which the caller lets go next.
UNDER_WAY = 5


def main() -> None:
    import haversack

    archive, count, cache = sys.argv[1], int(sys.argv[2]), "disk" if "disk" in sys.argv else None
    started = time.perf_counter()
    images = haversack.dataset(archive).images(
        size=(SIDE, SIDE), channels=1, batch_size=BATCH, dtype="uint8", cache=cache
    )
    opened = time.perf_counter() - started
    for step in range(count):
        images.batch(0, step)
    images.close()
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    status = {line[0].rstrip(":"): int(line[1]) / 1e3 * 1.024 for line in lines if line[-1] == "kB"}
    batches = UNDER_WAY * BATCH * SIDE * SIDE / 1e6
    resident, anonymous = status["VmHWM"] - batches, status["RssAnon"]
    print(json.dumps({"MB resident": resident, "MB anonymous at the end": anonymous, "seconds to open": opened}))


if __name__ == "__main__":
    main()
