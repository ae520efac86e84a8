"""The notebook as files: the one that is given, the executed one, and its web page.

A given notebook is checked before anything starts. What is written is complete or absent, and passes through the
masking of secrets first; the notebook in memory keeps its true values, since cells are executed from it.
"""

from __future__ import annotations

import errno
import json
import tempfile
from pathlib import Path
from typing import Any

import nbformat

from haversack import disk
from haversack.errors import DiskFull, InputError, JobError, NotebookInvalid


def read(path: Path) -> Any:
    """The notebook at `path`, of nbformat 4, without the outputs of earlier executions.

    Raises `NotebookInvalid` when there is none, or it cannot be executed as it is.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise NotebookInvalid(f"There is no notebook {path}.", "Check the path.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NotebookInvalid(f"{path} is not a notebook: it is not JSON ({error}).", "Download it anew.") from None
    if not isinstance(content, dict) or not isinstance(content.get("nbformat"), int):
        raise NotebookInvalid(f"{path} is JSON, but not a notebook.", "Give the path of an .ipynb file.")
    if content["nbformat"] != 4:
        raise NotebookInvalid(
            f"{path} is a notebook of version {content['nbformat']}, and only version 4 can be executed.",
            f"Convert it: jupyter nbconvert --to notebook --nbformat 4 {path.name}",
        )
    return _checked(content, path)


def _checked(content: dict[str, Any], path: Path) -> Any:
    try:
        for cell in content["cells"]:
            if cell["cell_type"] == "code":
                cell.update(outputs=[], execution_count=None)
            cell.setdefault("metadata", {})
        metadata = content.setdefault("metadata", {})
        metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        metadata.setdefault("language_info", {"name": "python"})
        content["nbformat_minor"] = content.get("nbformat_minor") or 0
        _, content = nbformat.validator.normalize(content)
        notebook = nbformat.from_dict(nbformat.v4.rwbase.rejoin_lines(nbformat.from_dict(content)))
        nbformat.validate(notebook)
    except (KeyError, TypeError, AttributeError, nbformat.ValidationError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotebookInvalid(f"{path} is not a valid notebook: {reason}.", "Open it in Jupyter and save it.") from None
    return notebook


def copy_outputs(executed: Path | None, notebook: Any) -> None:
    """Put the outputs of the `executed` notebook into the cells of `notebook`, in place; none where it is another's."""
    if executed is None:
        return
    try:
        cells = nbformat.read(executed, as_version=4).cells
    except (OSError, ValueError, nbformat.ValidationError):
        return  # it was cut off or is something else; its cells are executed anew
    if [cell.cell_type for cell in cells] != [cell.cell_type for cell in notebook.cells]:
        return
    for cell, before in zip(notebook.cells, cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = before.outputs, before.execution_count


def check_output(output: Path, notebook: Path) -> None:
    """Raise `InputError` when the executed notebook could not be written to `output`, or would overwrite its source."""
    if output.is_dir():
        raise InputError(f"{output} is a folder.", "Name a file for the result.")
    if output.exists() and output.samefile(notebook):
        raise InputError(f"{output} is the notebook itself.", "Name another file with -o.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=output.parent, prefix=".haversack-"):
            pass
    except OSError as error:
        raise InputError(
            f"{output} cannot be written: {error.strerror}.", "Name a file in a folder of yours with -o."
        ) from None


def write(notebook: Any, output: Path) -> None:
    """Write the notebook to `output`, complete or not at all. Raises `DiskFull`, or `JobError` for another refusal."""
    write_text(nbformat.writes(notebook, version=4) + "\n", output)


def write_page(notebook: Any, output: Path) -> None:
    """Write the notebook as a web page that stands alone, its images inside. Raises like `write`."""
    from jinja2 import TemplateError
    from nbconvert import HTMLExporter

    try:
        page, _ = HTMLExporter(embed_images=True).from_notebook_node(notebook)
    except (ValueError, OSError, TemplateError) as error:
        reason = str(error).splitlines()[0]
        raise JobError(f"The web page could not be made: {reason}", "The executed notebook is complete.") from error
    write_text(page, output)


def write_text(text: str, output: Path) -> None:
    """Write a text file by atomic replace. Raises `DiskFull`, and `JobError` for any other failure."""
    try:
        disk.write(output, text)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"The disk is full, so {output} could not be saved.", "Free space, then run again."
            ) from None
        raise JobError(f"{output} could not be saved: {error.strerror}.", "Name another file with -o.") from None
