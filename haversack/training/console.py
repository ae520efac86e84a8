"""What a training tells its user: one line at a time, beside what the framework prints itself."""

from __future__ import annotations

import sys

from haversack import place


def print_line(text: str) -> None:
    """Print "haversack: " and `text`: in a notebook on standard output, as frameworks do, else on standard error."""
    print(f"haversack: {text}", file=sys.stdout if place.in_kernel() else sys.stderr, flush=True)
