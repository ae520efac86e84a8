"""Cells that end their own kernel: in the last cell the job is done, in an earlier one it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.errors import CellFailed, KernelDied
from tests.conftest import RunningHub
from tests.notebook import notebooks
from tests.notebook.conftest import Run

UNASSIGN = "from google.colab import runtime\nprint('bye')\nruntime.unassign()\nprint('never')"
KILL = "import os, signal\nprint('bye')\nos.kill(os.getpid(), signal.SIGKILL)\nprint('never')"
MODEL = """
import sys
sys.modules["sklearn"] = None  # Keras imports it where it is installed
import keras, numpy as np
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(np.ones((64, 2)), np.ones((64, 1)), verbose=0); None
"""


@pytest.mark.parametrize(
    "ending",
    [UNASSIGN, KILL, "print('bye')\nexit()", "print('bye')\nquit()", "print('bye')\nimport sys\nsys.exit(0)"],
    ids=["unassign", "kill", "exit", "quit", "sys.exit"],
)
def test_in_the_last_cell_the_job_is_done(run: Run, ending: str) -> None:
    report = run("print('trained')", ending)
    assert (report.status, report.sessions, report.cells) == ("done", 1, 2), report.error
    cell = notebooks.read(report.output).cells[1]
    assert cell.execution_count == 2
    assert notebooks.text(report.output, 1).startswith("bye\n")
    assert "never" not in notebooks.text(report.output, 1)


def test_an_empty_cell_behind_it_is_no_later_cell(run: Run) -> None:
    assert run(KILL, "", "  ").status == "done"


def test_what_was_written_to_the_drive_is_there(run: Run, own_hub: RunningHub) -> None:
    mount = "from google.colab import drive\ndrive.mount('/content/drive')"
    report = run(mount, f"open('/content/drive/My Drive/a.txt', 'w').write('kept')\n{UNASSIGN}")
    assert report.status == "done", report.error
    assert (own_hub.my_drive / "a.txt").read_text() == "kept"


@pytest.mark.parametrize("ending", [UNASSIGN, "exit()"], ids=["unassign", "exit"])
def test_the_checkpoints_of_its_trainings_are_deleted_without_the_kernel(
    run: Run, own_folders: Path, ending: str
) -> None:
    report = run(MODEL, ending)
    assert (report.status, report.notices) == ("done", []), report.error
    [name] = report.trainings
    assert not list((own_folders / "data" / "runs" / name / "checkpoints").rglob("*.safetensors"))


def test_unassigned_in_an_earlier_cell_the_session_ends(run: Run) -> None:
    report = run(UNASSIGN, "print('after')")
    assert isinstance(report.failure, KernelDied)
    assert "Cell 1 ended the session with runtime.unassign(), before the notebook's last cell" in str(report.failure)
    assert notebooks.text(report.output, 1) == ""


def test_a_later_session_goes_on_where_one_was_unassigned(run: Run, tmp_path: Path) -> None:
    begun = str(tmp_path / "begun")
    once = f"import os\nif not os.path.exists({begun!r}):\n    open({begun!r}, 'w').close()\n    runtime.unassign()"
    report = run(f"from google.colab import runtime\n{once}", "print('after')")
    assert (report.status, report.sessions) == ("done", 2), report.error


def test_killed_in_an_earlier_cell_the_kernel_has_died(run: Run) -> None:
    assert isinstance(run(KILL, "print('after')").failure, KernelDied)


def test_killed_by_another_process_in_the_last_cell_the_kernel_has_died(run: Run) -> None:
    report = run("import os\nos.system(f'kill -9 {os.getpid()}')\nimport time; time.sleep(60)")
    assert isinstance(report.failure, KernelDied)


def test_a_forked_process_that_kills_itself_is_not_the_kernel(run: Run) -> None:
    fork = (
        "import os, time\nif not (child := os.fork()):\n    os.kill(os.getpid(), 9)\nos.waitpid(child, 0)\nos._exit(3)"
    )
    assert isinstance(run(fork).failure, KernelDied)


@pytest.mark.parametrize("status", ["1", "'no data'"])
def test_another_exit_status_is_a_failure(run: Run, status: str) -> None:
    report = run(f"import sys\nsys.exit({status})")
    assert isinstance(report.failure, CellFailed)


def test_exit_with_0_in_an_earlier_cell_is_a_failure(run: Run) -> None:
    assert isinstance(run("import sys\nsys.exit(0)", "1").failure, CellFailed)


def test_other_signals_reach_the_kernel(run: Run) -> None:
    caught = "import os, signal\nsignal.signal(signal.SIGUSR1, lambda *_: print('caught'))\n"
    report = run(caught + "os.kill(os.getpid(), signal.SIGUSR1)")
    assert notebooks.text(report.output, 0) == "caught\n"
