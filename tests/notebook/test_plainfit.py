"""Plain `model.fit` in a job: routed through `haversack.fit`, and left alone where it should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.notebook.job import job
from tests.conftest import RunningHub
from tests.notebook import notebooks
from tests.notebook.conftest import Run

MODEL = """
import importlib.util
assert importlib.util.find_spec("keras")  # whoever only asks for it changes nothing
import hashlib, sys
sys.modules["sklearn"] = None  # Keras imports it where it is installed
import keras, numpy as np
unseeded = np.random.random((64, 2))
keras.utils.set_random_seed(1)
x, y = np.ones((64, 2)), np.ones((64, 1))
class Own(keras.Sequential):
    def fit(self, *arguments, **named):
        print("own")
        return super().fit(*arguments, **named)
def compiled(kind=keras.Sequential):
    model = kind([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model
def weights(model):
    return hashlib.sha256(b"".join(value.tobytes() for value in model.get_weights())).hexdigest()
"""
FIT = "model = compiled()\nhistory = model.fit(x, y, 16, epochs=2, verbose=0)\nprint(weights(model), history.history)"
DIE_ONCE = (
    "import os\ncount = {count!r}\nopen(count, 'a').write('x')\nif os.path.getsize(count) == 1: os.kill(os.getpid(), 9)"
)


def runs(data: Path) -> list[str]:
    """The trainings in a data folder, without the part of their names that is the job's."""
    return sorted(log.parent.name.partition(".")[2] for log in (data / "runs").glob("*/log.jsonl"))


@pytest.fixture(scope="module")
def report(run_once: Run, tmp_path_factory: pytest.TempPathFactory) -> job.JobReport:
    """A job whose kernel is killed once, after its trainings."""
    second = "first, second = compiled(), compiled()\nfirst.fit(x, y, verbose=0); second.fit(unseeded, y, verbose=0)"
    drawn = "compiled().fit(np.random.default_rng().random((64, 2)), y, verbose=0); None"
    own = "compiled(Own).fit(x, y, verbose=0); None"
    die = DIE_ONCE.format(count=str(tmp_path_factory.mktemp("count") / "n"))
    return run_once(
        MODEL,
        FIT,
        second + "; None",
        own,
        drawn,
        die,
        "import inspect; print(list(inspect.signature(model.fit).parameters)[:3])",
        "%%writefile tf_keras.py\nclass Model:\n    def fit(self, x): return x\nclass Sequential(Model): pass",
        "import tf_keras\nprint(tf_keras.Sequential().fit(1), tf_keras.Model().fit(2))",
    )


def test_each_training_is_named_by_its_cell_and_its_place_there(report: job.JobReport) -> None:
    assert runs(Path(report.job).parent.parent) == ["cell-2.1", "cell-3.1", "cell-3.2", "cell-5.1"]


def test_a_finished_training_is_not_repeated_in_the_next_session(report: job.JobReport) -> None:
    assert (report.status, report.sessions) == ("done", 2)
    assert "its history and weights are loaded" in notebooks.text(report.output, 1)


def test_a_class_with_a_fit_of_its_own_keeps_it(report: job.JobReport) -> None:
    assert notebooks.text(report.output, 3) == "own\n"


def test_a_training_whose_data_are_others_in_each_session_is_trained_plainly(report: job.JobReport) -> None:
    assert "trained without checkpoints: The run" in notebooks.text(report.output, 4)


def test_data_drawn_without_a_seed_is_the_same_in_the_next_session(report: job.JobReport) -> None:
    assert notebooks.text(report.output, 2).count("its history and weights are loaded") == 2
    assert len([notice for notice in report.notices if "--unseeded turns this off" in notice]) == 1


def test_the_method_looks_like_keras_own(report: job.JobReport) -> None:
    assert notebooks.text(report.output, 6) == "['x', 'y', 'batch_size']\n"


def test_keras_2_trains_plainly_and_says_so_once(report: job.JobReport) -> None:
    told = notebooks.text(report.output, 8)
    assert told.startswith("1 2\n")
    assert told.count("haversack: not durable: tf_keras is Keras 2") == 1


def test_a_job_that_is_done_leaves_no_checkpoints(report: job.JobReport) -> None:
    data = Path(report.job).parent.parent
    assert list((data / "runs").rglob("*.safetensors")) == []


def test_plain_leaves_it_alone(run: Run, own_folders: Path) -> None:
    report = run(MODEL, FIT, "print(keras.Model.fit.__module__)", plain=True)
    assert runs(own_folders / "data") == []
    assert notebooks.text(report.output, 2).startswith("keras")


def test_with_a_named_hub_the_checkpoints_are_on_its_drive_and_go_when_the_job_is_done(
    run: Run, own_folders: Path, own_hub: RunningHub
) -> None:
    look = (
        f"import os\nprint(sum(len(files) for *_, files in os.walk({str(own_hub.my_drive / 'haversack' / 'runs')!r})))"
    )
    report = run(MODEL, FIT, look)
    assert report.status == "done"
    assert int(notebooks.text(report.output, 2)) > 1
    assert list(own_hub.my_drive.rglob("*.safetensors")) == []
