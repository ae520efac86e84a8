from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.blocks.storage import Storage, serving


@pytest.fixture
def storage() -> Iterator[Storage]:
    """Storage that serves 5 MB and a bit."""
    with serving(Storage(random.Random(0).randbytes(5_000_123))) as running:
        yield running
