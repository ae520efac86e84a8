"""`--param name=value`: papermill's tag, Colab's forms, plain assignments."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.errors import InputError, ParameterUnknown
from haversack.notebook.record import document, parameters
from tests.notebook import notebooks


def applied(tmp_path: Path, *sources: str, tags: dict[int, list[str]] | None = None, **values: object) -> list[str]:
    notebook = document.read(notebooks.write(tmp_path / "nb.ipynb", *sources, tags=tags))
    parameters.apply(notebook, values)
    return [cell.source for cell in notebook.cells]


def test_values_are_json_or_else_text() -> None:
    given = ["epochs=5", "rate=1e-3", "name=a=b", "flags=[1, null]", "empty="]
    assert parameters.parse(given) == {"epochs": 5, "rate": 1e-3, "name": "a=b", "flags": [1, None], "empty": ""}


@pytest.mark.parametrize("given", ["epochs", "=5", "a-b=1", "1a=2"])
def test_what_sets_nothing_is_refused(given: str) -> None:
    with pytest.raises(InputError, match="sets no parameter"):
        parameters.parse([given])


def test_a_tagged_cell_is_followed_by_the_new_values(tmp_path: Path) -> None:
    sources = applied(tmp_path, "a = 1\nb = 2", "print(a)", tags={0: ["parameters"]}, a=5)
    assert sources == ["a = 1\nb = 2", "# Parameters\na = 5", "print(a)"]


def test_a_form_gets_the_value_in_place(tmp_path: Path) -> None:
    source = 'epochs = 20 #@param {type:"integer"}\nname = "ü"; other = 1'
    assert applied(tmp_path, source, epochs=3, other="x") == [
        'epochs = 3 #@param {type:"integer"}\nname = "ü"; other = \'x\''
    ]


def test_a_form_comes_before_an_earlier_plain_assignment(tmp_path: Path) -> None:
    assert applied(tmp_path, "n = 1", "n = 2 # @param", n=3) == ["n = 1", "n = 3 # @param"]


def test_only_the_first_plain_assignment_changes(tmp_path: Path) -> None:
    assert applied(tmp_path, "!pip install x\nn = [1,\n  2]\nn = 4", n=3) == ["!pip install x\nn = 3\nn = 4"]


@pytest.mark.parametrize("line", ["files = !ls", "!pip install \\\n  x", "a, b = %time f()", "  %cd x"])
def test_shell_lines_and_magics_hide_no_assignment(tmp_path: Path, line: str) -> None:
    assert applied(tmp_path, f"if 1:\n{line}\nn = 1" if line[0] == " " else f"{line}\nn = 1", n=3)[0].endswith(
        "\nn = 3"
    )


def test_an_unknown_name_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ParameterUnknown, match=r"sets no 'c'. It sets: a, b\."):
        applied(tmp_path, "a = 1\nb = 2", c=1)


def test_nan_and_infinity_are_written_as_python_can_read_them(tmp_path: Path) -> None:
    [_, new] = applied(tmp_path, "a = 1", tags={0: ["parameters"]}, a={"b": [float("nan"), 1.5]})
    assert new == "# Parameters\na = {'b': [float('nan'), 1.5]}"
    assert applied(tmp_path, "a = 1", a=float("-inf")) == ["a = float('-inf')"]
