"""What a hub that was started with `--log` says of the calls it answered."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any


def lines(log: Path) -> list[dict[str, Any]]:
    """Every call, the oldest first."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def routes(log: Path) -> Counter[str]:
    """How often each call was answered over the network; a batch counts once."""
    return Counter(line["route"] for line in lines(log))
