"""Notebooks read and written: what cannot be executed is refused in one sentence."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from pathlib import Path

import nbformat
import pytest

from haversack.errors import DiskFull, JobError, NotebookInvalid
from haversack.notebook.record import document
from tests.notebook import notebooks


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("\xff\xfe", "not JSON"),
        ("[]", "not a notebook"),
        ('{"a": 1}', "not a notebook"),
        ('{"nbformat": 3, "worksheets": []}', "jupyter nbconvert --to notebook --nbformat 4 nb.ipynb"),
        ('{"nbformat": 4, "cells": [{"cell_type": "code"}]}', "not a valid notebook"),
        ('{"nbformat": 4, "cells": 5}', "not a valid notebook"),
        ('{"nbformat": 4}', "not a valid notebook"),
    ],
)
def test_what_is_no_notebook_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "nb.ipynb"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(NotebookInvalid, match=said):
        document.read(path)


def test_a_missing_notebook_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotebookInvalid, match="There is no notebook"):
        document.read(tmp_path / "none.ipynb")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotebookInvalid, match="There is no notebook"):
        document.read(tmp_path)


def test_colabs_own_files_are_read(tmp_path: Path) -> None:
    """Source as a list of lines, no minor version, no execution counts, Colab's metadata."""
    cell = {"cell_type": "code", "source": ["a = 1\n", "a"], "metadata": {"id": "x", "outputId": "y"}}
    (tmp_path / "nb.ipynb").write_text(json.dumps({"nbformat": 4, "cells": [cell], "metadata": {"colab": {}}}))
    assert document.read(tmp_path / "nb.ipynb").cells[0].source == "a = 1\na"


def test_earlier_outputs_are_left_behind(tmp_path: Path) -> None:
    path = notebooks.write(tmp_path / "nb.ipynb", "1")
    content = json.loads(path.read_text())
    content["cells"][0]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "old"}]
    path.write_text(json.dumps(content))
    assert document.read(path).cells[0].outputs == []


def test_a_refused_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.ipynb"
    path.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(JobError, match="could not be saved"):
            document.write_text("new" * 1000, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a small file system")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("this machine allows no mounts")
    try:
        path = tmp_path / "out.ipynb"
        path.write_text("old")
        with pytest.raises(DiskFull, match="Free space"):
            document.write_text("new" * 100_000, path)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_half_a_surrogate_pair_is_written_as_it_was(tmp_path: Path) -> None:
    output = nbformat.v4.new_output("stream", text="é \\\udc80\n")
    cells = [nbformat.v4.new_markdown_cell("half: \ud83d"), nbformat.v4.new_code_cell("1", outputs=[output])]
    document.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "nb.ipynb")
    text, code = json.loads((tmp_path / "nb.ipynb").read_text(encoding="utf-8"))["cells"]
    assert "".join(text["source"]) == "half: \ud83d"
    assert "".join(code["outputs"][0]["text"]) == "é \\\udc80\n"
    assert document.read(tmp_path / "nb.ipynb").cells[0].source == "half: \ud83d"


def test_code_with_half_a_surrogate_pair_is_refused(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("a = 1\nb = '\ud83d'")])
    document.write(notebook, tmp_path / "nb.ipynb")
    with pytest.raises(NotebookInvalid, match=r"Line 2 of cell 1 of .*nb\.ipynb has half of a character"):
        document.read(tmp_path / "nb.ipynb")


def test_a_page_shows_half_a_surrogate_pair_as_unknown(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("half: \ud83d")])
    document.write_page(notebook, tmp_path / "out.html")
    assert "half: \N{REPLACEMENT CHARACTER}" in (tmp_path / "out.html").read_text(encoding="utf-8")
