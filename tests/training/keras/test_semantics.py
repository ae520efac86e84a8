"""A named fit is `model.fit`: the same history, weights and calls of callbacks, whatever it is given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CASES = ["names", "classes", "data_sets", "short_epochs", "stopped", "nothing_to_do"]
READ_AHEAD = ["data_sets read ahead", "short_epochs read ahead"]
SEMANTICS = Path(__file__).parents[1] / "programs" / "semantics.py"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    environment = {**os.environ, "HAVERSACK_DATA": str(tmp_path_factory.mktemp("data"))}
    command = [sys.executable, str(SEMANTICS)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=540, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("what", ["history", "epochs", "calls", "data set", "weights"])
@pytest.mark.parametrize("case", [*CASES, *READ_AHEAD])
def test_a_named_fit_is_what_keras_does(both: dict[str, list[dict[str, Any]]], case: str, what: str) -> None:
    plain, named = both[case]
    assert named[what] == plain[what]
