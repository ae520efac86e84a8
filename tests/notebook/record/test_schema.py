"""What a job's process imports with nbformat."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

PROGRAM = """
import importlib.util, sys
from haversack.notebook.job import job
print(sorted({"arrow", "lark", "isoduration", "rfc3987_syntax"} & set(sys.modules)))
print(importlib.util.find_spec("rfc3987_syntax") is not None)
"""


def test_a_job_imports_no_grammar_of_addresses_and_hides_it_from_nobody() -> None:
    if importlib.util.find_spec("rfc3987_syntax") is None:
        pytest.skip("JupyterLab brings it")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\nTrue\n"
