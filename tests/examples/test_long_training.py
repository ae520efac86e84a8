"""The notebook of a long training, its epochs made few: killed in the middle of one of them, it ends as it should."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat

from haversack import runs

NOTEBOOK = Path(__file__).parents[2] / "examples" / "colab" / "long_training.ipynb"


def test_it_is_rehearsed(tmp_path: Path) -> None:
    executed = tmp_path / "out.ipynb"
    page = tmp_path / "out.html"
    options = ["--param", "epochs=45", "--rehearse=compare", "-o", str(executed), "--html", str(page), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "haversack", "run", str(NOTEBOOK), *options], stdout=subprocess.PIPE, text=True
    )
    report = json.loads(done.stdout)
    assert (report["status"], report["sessions"]) == ("done", 2)
    assert any(notice.startswith("Ended as without a kill, to the bit: cell-") for notice in report["notices"])
    killed, whole = runs.show(*report["trainings"]).sessions
    assert (killed.outcome, whole.outcome) == ("killed", "finished")
    assert killed.reached is not None
    assert whole.resumed is not None
    assert (0, 0) < whole.resumed <= killed.reached
    assert whole.resumed[1] > 0
    assert f'alt="The loss of {report["trainings"][0]}"' in page.read_text()
    text = nbformat.read(executed, as_version=4).cells[7].outputs[0].text
    assert float(re.findall(r"0\.\d+", text)[0]) > 0.9


def test_it_is_kept_without_outputs() -> None:
    assert not any(cell.get("outputs") for cell in nbformat.read(NOTEBOOK, as_version=4).cells)
