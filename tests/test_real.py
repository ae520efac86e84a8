"""The run of public notebooks: the draw, the replaced lines, the made data, and the rules that sort a stop."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from scripts.real_notebooks import cells, drawing, inputs, programs, replacements, results, stops
from scripts.real_notebooks.drawing import COLAB_LOT, KAGGLE_LOT, LOTS, Lot
from scripts.real_notebooks.programs import Outcome

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "scripts" / "real.tsv"
REPLACEMENTS = ROOT / "scripts" / "real_replacements.tsv"
NO_MXNET = "ERROR: No matching distribution found for mxnet-cu112==1.9.1"
OUR_FRAME = "/e/lib/python3.11/site-packages/haversack/notebook/plainfit.py in fit\n/site-packages/keras/a.py in b"


def failed(error: str, message: str, **more: Any) -> Outcome:
    return Outcome("failed", 1.0, error=error, message=message, **more)


def ran(error: str, message: str, **more: Any) -> Outcome:
    """A failure in a cell that ran where the notebook was published."""
    return failed(error, message, ran=True, **more)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome("done", 1.0), "done"),
        (failed("OSError", "We couldn't connect to 'https://huggingface.co' to load"), "internet (huggingface.co)"),
        (failed("URLError", "<urlopen error [Errno -2] Name or service not known>"), "internet"),
        (
            failed("FileNotFoundError", "'a.zip'", printed="wget: unable to resolve host address ‘a.example.com’"),
            "internet (a.example.com)",
        ),
        (failed("SecretNotFoundError", "Secret KEY does not exist."), "internet (a sign-in)"),
        (failed("AssertionError", "Please insert your Comet API Key"), "internet (a sign-in)"),
        (failed("AssertionError", "Torch not compiled with CUDA enabled"), "GPU"),
        (Outcome("time", 900.0, accelerator="GPU"), "GPU (out of time)"),
        (failed("AttributeError", "module 'numpy' has no attribute 'bool'"), "drift (numpy)"),
        (failed("ImportError", "cannot import name 'GMM' from 'sklearn.mixture' (a.py)"), "drift (sklearn)"),
        (failed("ModuleNotFoundError", "No module named 'sklearn.cross_validation'"), "drift (sklearn)"),
        (
            failed("AttributeError", "`np.x` was removed", text="/site-packages/numpy/__init__.py in f\n---> 1"),
            "drift (numpy)",
        ),
        (
            failed("ModuleNotFoundError", "No module named 'mxnet'", printed=NO_MXNET),
            "drift (mxnet-cu112)",
        ),
        (
            ran(
                "TypeError",
                "Coder.__init__() got an unexpected keyword argument 'sparse'",
                imported={"Coder": "sklearn"},
            ),
            "drift (sklearn)",
        ),
        (
            ran("TypeError", "error_of() got an unexpected keyword argument 'root'", imported={"error_of": "sklearn"}),
            "drift (sklearn)",
        ),
        (
            ran("TypeError", "got an unexpected keyword argument 'root'", text="/site-packages/sklearn/a.py in f"),
            "drift (sklearn)",
        ),
        (
            ran("AttributeError", "'Near' object has no attribute 'fit_sample'", imported={"Near": "imblearn"}),
            "drift (imblearn)",
        ),
        (
            ran("ValueError", "model must be one of: 'a', 'b'", text="/site-packages/statsmodels/a.py"),
            "drift (statsmodels)",
        ),
        (ran("ValueError", "Argument(s) not recognized: {'lr': 0.1}"), "drift (keras)"),
        (
            ran("ValueError", "x", text="df.corr()\ncould not convert string to float: 'C'"),
            "drift (pandas)",
        ),
        (ran("ValueError", "could not convert string to float: 'B'", asks_for_object=True), "drift (pandas)"),
        (failed("ModuleNotFoundError", "No module named 'kaggle_evaluation'"), "internet (kaggle.com)"),
        (failed("SyntaxError", "invalid syntax", source="x = # Your Code Here"), "notebook (a blank to fill)"),
        (failed("ValueError", "as wanted", published="ValueError: as wanted"), "notebook (published with it)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_stop_that_a_rule_knows(outcome: Outcome, expected: str) -> None:
    assert str(stops.stop(outcome)) == expected


@pytest.mark.parametrize(
    "outcome",
    [
        failed("ModuleNotFoundError", "No module named 'pandas'"),
        failed("AttributeError", "module 'google.colab.output' has no attribute 'x'"),
        failed("ImportError", "cannot import name 'x' from 'google.colab' (a.py)"),
        failed("ConnectionRefusedError", "127.0.0.1: cannot connect to 127.0.0.1"),
        failed("TypeError", "x was removed", text="/site-packages/keras/a.py\n/site-packages/haversack/b.py"),
        failed("ValueError", "1", published="ValueError: 2"),
        failed("RuntimeError", "x", printed="Could not resolve host: github.com"),
        failed("ModuleNotFoundError", "No module named 'a'", printed="Could not resolve host: github.com"),
        failed("NameError", "name 'a' is not defined", printed="Could not resolve host: github.com"),
        failed("ModuleNotFoundError", "No module named 'pandas'", printed=NO_MXNET),
        failed("ModuleNotFoundError", "No module named 'mpl_toolkits.basemap'"),
        failed("TypeError", "f() got an unexpected keyword argument 'api_key'"),
        failed("SyntaxError", "invalid syntax", source="x = 1  # TODO: another number\n!ls"),
        *(failed(error, "x", source="x = f(1)  # TODO") for error in ("TypeError", "ValueError", "AttributeError")),
        failed("AttributeError", "module 'numpy' has no attribute 'bool'", text=OUR_FRAME),
        failed("ValueError", "as wanted", published="ValueError: as wanted", text=OUR_FRAME),
        failed("TypeError", "Coder() got an unexpected keyword argument 'sparse'", imported={"Coder": "sklearn"}),
        failed("ValueError", "model must be one of: 'a', 'b'", text="/site-packages/statsmodels/a.py"),
        failed("ValueError", "Argument(s) not recognized: {'lr': 0.1}"),
        ran("TypeError", "f.<locals>.g() got an unexpected keyword argument 'a'", imported={"f": "sklearn"}),
        ran("AttributeError", "'Near' object has no attribute 'a'"),
        ran("ValueError", "could not convert string to float: 'B'"),
        failed("ValueError", "could not convert string to float: 'B'", asks_for_object=True),
        ran("AttributeError", "'Drive' object has no attribute 'a'", imported={"Drive": "google"}),
        ran("FileNotFoundError", "No such file or directory: '/kaggle/input/titanic/train.csv'"),
        failed("", "haversack: error: …"),
        failed("", "", printed="error: Could not resolve host: github.com"),
        Outcome("time", 900.0),
    ],
    ids=lambda outcome: f"{outcome.error or outcome.status} {outcome.message}",
)
def test_what_no_rule_knows_is_ours(outcome: Outcome) -> None:
    assert stops.stop(outcome).sort == stops.OURS


REFUSED = (
    "haversack: The table of packages does not provide 2 imports of this notebook: own (cells 4, 8), own.b.c (cell 9)."
    " Install the package of own in a cell before, by the name on PyPI: %pip install PACKAGE …"
)
NO_CSV = "[Errno 2] No such file or directory: 'data/a.csv'"


@pytest.mark.parametrize(
    ("error", "message", "path", "expected"),
    [
        ("FileNotFoundError", NO_CSV, "notebooks/data/a.csv", "notebook (a file of its repository: a.csv)"),
        ("FileNotFoundError", NO_CSV, "notebooks/data/b.csv", stops.OURS),
        ("ModuleNotFoundError", "No module named 'helpers'", "x/helpers.py", stops.NOTEBOOK),
        ("FileNotFoundError", "No such file or directory: '../input/a/a.csv'", "data/a.csv", stops.OURS),
        ("FileNotFoundError", "No such file or directory: '/kaggle/input/a.csv'", "data/a.csv", stops.OURS),
        ("ModuleNotFoundError", "No module named 'helpers'", "x/helpers/a.py", "notebook (a file of its"),
        ("ModuleNotFoundError", "No module named 'helpers'", "x/helpers", stops.OURS),
        ("", REFUSED, "own/a.py", "notebook (a file of its repository: own)"),
        ("", REFUSED.replace("own.b.c", "other"), "own/a.py", stops.OURS),
        ("ModuleNotFoundError", "No module named 'helpers.a'", "x/b.py", stops.DRIFT),
    ],
)
def test_a_file_of_the_repository_is_told_from_one_that_nobody_has(
    error: str, message: str, path: str, expected: str
) -> None:
    assert str(stops.stop(failed(error, message), {path})).startswith(expected)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (failed("FileNotFoundError", NO_CSV), stops.INTERNET),
        (failed("FileNotFoundError", "No such file or directory: 'b.csv'"), stops.OURS),
        (failed("CalledProcessError", "returned 2.", source="!wget -q URL/data/a.csv\ntar xf a.csv"), stops.INTERNET),
        (failed("ModuleNotFoundError", "No module named 'a_b'"), stops.INTERNET),
        (failed("ModuleNotFoundError", "No module named 'b'"), stops.OURS),
        (failed("ModuleNotFoundError", "No module named 'b'", source="!pip install URL/a-b.git"), stops.OURS),
    ],
)
def test_a_fetch_that_failed_without_a_message_is_known_by_its_host(outcome: Outcome, expected: str) -> None:
    host = "no.such.host.invalid"
    lines = [f"!wget -q https://{host}/data/a.csv", f"!pip install git+https://{host}/a-b.git"]
    outcome.source = outcome.source.replace("URL", f"https://{host}")
    assert stops.stop(outcome).sort == stops.OURS
    outcome.fetches = programs._fetches([*lines, "!curl -s http://localhost/b.csv"])
    assert outcome.fetches == [(host, line) for line in lines]
    assert stops.stop(outcome).sort == expected


def test_a_stop_that_another_program_does_not_have_is_ours() -> None:
    drift = failed("AttributeError", "module 'numpy' has no attribute 'bool'", cell=3)
    later = failed("KeyError", "1", cell=4)
    for other, expected in ((Outcome("done", 1.0), "ours"), (later, "ours"), (drift, "drift")):
        assert results.sort({"haversack": drift, "papermill": other}, None)["haversack"].sort == expected


IMPORTS = {"cells": [{"cell_type": "code", "source": ["import torch\n", "import pandas"]}]}


def test_the_draw_follows_the_order_of_hashes_and_takes_at_most_eight(tmp_path: Path) -> None:
    lot = Lot(("a/many", "b/few"), count=10, most=8)
    repository(tmp_path / "a+many", {f"{number}.ipynb": json.dumps(IMPORTS) for number in range(20)})
    repository(tmp_path / "b" / "few", {"c/1.ipynb": json.dumps(IMPORTS), "2.ipynb": "", "3.py": "", "4.ipynb": "{"})
    (tmp_path / "b" / "few" / "4.ipynb").write_text("not committed")
    with pytest.raises(json.JSONDecodeError):
        drawing.draw(tmp_path, [lot])
    (tmp_path / "b" / "few" / "4.ipynb").write_text('{"cells": []}')
    commit(tmp_path / "b" / "few")
    rows = drawing.draw(tmp_path, [lot])
    hashes = [drawing.hash_of(row.place) for row in rows]
    assert hashes == sorted(hashes)
    assert sum(row.repository == "a/many" for row in rows) == 8
    assert {(row.path, row.kind) for row in rows if row.repository == "b/few"} == {
        ("c/1.ipynb", "PyTorch"),
        ("4.ipynb", "text"),
    }


def test_of_kaggle_only_notebooks_that_read_an_input_are_drawn(tmp_path: Path) -> None:
    def reading(path: str) -> str:
        return json.dumps({"cells": [{"cell_type": "code", "source": f"open('{path}')"}]})

    repository(
        tmp_path / "a+b",
        {
            "old.ipynb": reading("../input/a.csv"),
            "new.ipynb": reading("/kaggle/input/datasets/a/b/c.csv"),
            "walk.ipynb": reading("/kaggle/input"),
            "text.ipynb": json.dumps({"cells": [{"cell_type": "markdown", "source": "../input/a.csv"}]}),
            "pointer.ipynb": "version https://git-lfs.github.com/spec/v1",
            ".ipynb_checkpoints/old.ipynb": reading("../input/a.csv"),
        },
    )
    rows = drawing.draw(tmp_path, [Lot(("a/b",), count=9, most=9, kind=drawing.KAGGLE)])
    assert {(row.path, row.kind) for row in rows} == {("old.ipynb", "kaggle"), ("new.ipynb", "kaggle")}


def test_the_table_is_what_was_drawn() -> None:
    rows = drawing.read(TABLE)
    assert len(rows) == sum(lot.count for lot in LOTS)
    for lot, drawn in ((COLAB_LOT, rows[: COLAB_LOT.count]), (KAGGLE_LOT, rows[COLAB_LOT.count :])):
        hashes = [drawing.hash_of(row.place) for row in drawn]
        assert hashes == sorted(hashes)
        assert {row.repository for row in drawn} <= set(lot.repositories)
        assert max(sum(row.repository == one for row in drawn) for one in lot.repositories) == lot.most
        assert all((row.kind == drawing.KAGGLE) == (lot is KAGGLE_LOT) for row in drawn)


def test_every_notebook_of_kaggle_has_made_data_but_the_one_that_reads_none() -> None:
    rows = [row for row in drawing.read(TABLE) if row.kind == drawing.KAGGLE]
    without = {row.path for row in rows if not inputs.wanted(row.place)}
    # It names weights in a branch that it does not take.
    assert without == {"fummicc1-cassava.ipynb"}
    assert {source for row in rows for source in inputs.wanted(row.place)} == set(inputs.SETS)


def test_made_data_is_the_same_at_every_call_and_has_the_columns_that_are_told(tmp_path: Path) -> None:
    path = inputs.write("kaggle:c/titanic", tmp_path)
    again = inputs.write("kaggle:c/titanic", tmp_path / "again")
    assert path.name == "titanic.zip"
    assert path.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert set(archive.namelist()) == {"train.csv", "test.csv", "gender_submission.csv"}
        rows = list(csv.DictReader(io.TextIOWrapper(archive.open("train.csv"))))
    assert {"PassengerId", "Survived", "Cabin"} < set(rows[0])
    assert [row["PassengerId"] for row in rows[:3]] == ["1", "2", "3"]
    assert {row["Survived"] for row in rows} == {"0", "1"}
    assert 0 < sum(not row["Age"] for row in rows) < len(rows) / 2


def test_made_pictures_are_pictures(tmp_path: Path) -> None:
    from PIL import Image

    with zipfile.ZipFile(inputs.write("kaggle:jakeshbohaju/brain-tumor", tmp_path)) as archive:
        picture = Image.open(archive.open("Brain Tumor/Brain Tumor/Image7.jpg"))
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (240, 240))


def test_the_modules_of_imported_names_are_known() -> None:
    sources = ["%matplotlib inline\nimport os.path, numpy as np", "from keras.layers import Dense as D\n!ls", "x = ("]
    assert cells.imported(sources) == {"os": "os", "np": "numpy", "D": "keras"}


def test_lines_are_replaced_and_counted_and_only_the_needed_stand_ins_come_along() -> None:
    source = "import seaborn as sns\niris = sns.load_dataset('iris')\nprint(iris.shape)"
    notebook = {"cells": [{"cell_type": "code", "source": source}]}
    assert replacements.replaced(notebook, "a/b/c.ipynb", replacements.read(REPLACEMENTS)) == 1
    stand_ins, cell = notebook["cells"]
    assert "load_dataset" not in cell["source"]
    assert "def stand_in_seaborn" in stand_ins["source"]
    assert "tensorflow" not in stand_ins["source"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x.select_dtypes(exclude=['object'])", True),
        ("x.select_dtypes(include=object)", True),
        ("[c for c in x if x[c].dtype == 'object']", True),
        ("x.dtypes == object", True),
        ("x.dtype in ['int64', 'float64']", False),
        ("x.select_dtypes(include=['number'])", False),
    ],
)
def test_a_question_for_columns_of_objects_is_known(source: str, expected: bool) -> None:
    assert cells.asks_for_object([source]) is expected


def test_exercises_of_kaggles_courses_run_without_their_package(capsys: pytest.CaptureFixture[str]) -> None:
    source = [
        "from learntools.core import binder; binder.bind(globals())",
        "from learntools.pandas.writing import *",
        "q1.check(), step_2.a.hint()",
    ]
    notebook = {"cells": [{"cell_type": "code", "source": "\n".join(source)}]}
    assert replacements.replaced(notebook, "a/b/c.ipynb", replacements.read(REPLACEMENTS)) == 2
    exec("\n".join(cell["source"] for cell in notebook["cells"]), {})
    assert capsys.readouterr().out == "Not checked.\n" * 2


def test_a_notebook_without_such_a_line_stays_as_it_is() -> None:
    notebook = {
        "cells": [{"cell_type": "code", "source": "print(1)"}, {"cell_type": "markdown", "source": "tfds.load"}]
    }
    assert replacements.replaced(notebook, "a/b/c.ipynb", replacements.read(REPLACEMENTS)) == 0
    assert len(notebook["cells"]) == 2


def test_every_stand_in_that_a_replacement_names_is_there() -> None:
    named = set(replacements._NAMED.findall(REPLACEMENTS.read_text()))
    assert len(named) > 5
    for name in named:
        assert f" {name}(" in replacements._definitions({name}) or f" {name}:" in replacements._definitions({name})


def test_an_outcome_has_the_failing_cell_and_what_was_printed_before(tmp_path: Path) -> None:
    error = {"output_type": "error", "ename": "KeyError", "evalue": "'a'", "traceback": ["\x1b[31mline\x1b[0m"]}
    printed = {"output_type": "stream", "name": "stdout", "text": ["sh: no such host\n"]}
    cells = [
        {"cell_type": "code", "source": "!curl", "outputs": [printed]},
        {"cell_type": "code", "source": "x['a']", "outputs": [error]},
    ]
    executed = tmp_path / "executed.ipynb"
    executed.write_text(json.dumps({"cells": cells}))
    published = {"metadata": {"accelerator": "GPU"}, "cells": [{"cell_type": "markdown"}, *cells]}
    found = programs.outcome(1, 2.04, executed, published, "log")
    assert (found.status, found.seconds, found.cell, found.error, found.message) == (
        "failed",
        2.0,
        2,
        "KeyError",
        "'a'",
    )
    assert (found.text, found.printed, found.published) == ("line", "sh: no such host\n\n", "KeyError: 'a'")
    assert not found.ran
    published["cells"][2] = {"cell_type": "code", "source": "x['a']", "outputs": [], "execution_count": 3}
    assert programs.outcome(1, 2.04, executed, published, "log").ran
    assert programs.outcome(None, 9.0, executed, published, "log").status == "time"
    assert programs.outcome(1, 9.0, tmp_path / "none", published, "\x1b[1mbad\x1b[0m wheel").message == "bad wheel"


def repository(folder: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    commit(folder)


def commit(folder: Path) -> None:
    subprocess.run(["git", "-C", str(folder), "add", "."], check=True)
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run(["git", "-C", str(folder), *who, "commit", "-q", "-m", "x"], check=True)
