"""Notebook files: the given notebook, the executed one, and its web page.

Runs in the process of `haversack run`. A given notebook is validated before a job starts. All files are written by
atomic replace. Nothing here masks secrets: callers pass a masked copy, because the notebook in memory keeps the source
that is executed.
"""

from __future__ import annotations

import errno
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from haversack import disk
from haversack.errors import DiskFull, InputError, JobError, NotebookInvalid
from haversack.notebook.record.schema import nbformat

_SURROGATE = re.compile("[\ud800-\udfff]")


def read(path: Path, address: str = "") -> Any:
    """Read the notebook at `path` as an nbformat node, prepared to be executed.

    `address` is what errors call it; "" for its path.
    Outputs and execution counts are removed, the kernelspec becomes `python3`, and missing required fields are filled
    in. Raises `NotebookInvalid` if there is no such file, or if it is not a valid notebook of nbformat 4, and `OSError`
    if it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise NotebookInvalid(f"There is no notebook {path}.", "Check the path.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NotebookInvalid(f"{path} is not a notebook: it is not JSON ({error}).", "Download it again.") from None
    if not isinstance(content, dict) or not isinstance(content.get("nbformat"), int):
        raise NotebookInvalid(f"{address or path} is JSON, but not a notebook.", "Give the path of an .ipynb file.")
    if content["nbformat"] != 4:
        raise NotebookInvalid(
            f"{address or path} is a notebook of version {content['nbformat']}, and only version 4 can be executed.",
            f"Convert it: jupyter nbconvert --to notebook --nbformat 4 {path.name}",
        )
    return _normalize(content, address or str(path))


def _normalize(content: dict[str, Any], name: str) -> Any:
    """Fill in fields that Colab leaves out, remove outputs, validate, and return an nbformat node.

    `name` is what errors call it. Raises `NotebookInvalid`.
    """
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
        raise NotebookInvalid(f"{name} is not a valid notebook: {reason}.", "Open it in Jupyter and save it.") from None
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "code" and (half := _SURROGATE.search(cell.source)):
            line = cell.source.count("\n", 0, half.start()) + 1
            raise NotebookInvalid(
                f"Line {line} of cell {number} of {name} has half of a character, which Python cannot read.",
                "Delete what stands there, and write the character again.",
            )
    return notebook


def copy_outputs(executed: Path | None, notebook: Any) -> None:
    """Copy outputs and execution counts from the notebook file `executed` into the cells of `notebook`, in place.

    Nothing is copied if `executed` is None or unreadable, or if its cells differ in number or type.
    """
    if executed is None:
        return
    try:
        cells = nbformat.read(executed, as_version=4).cells
    except (OSError, ValueError, nbformat.ValidationError):
        return  # truncated, or not a notebook: all cells will be executed again anyway
    if [cell.cell_type for cell in cells] != [cell.cell_type for cell in notebook.cells]:
        return
    for cell, before in zip(notebook.cells, cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = before.outputs, before.execution_count


def address_of(executed: Path) -> str:
    """Return the address that the executed notebook in the file `executed` was fetched from; "" for any other file."""
    try:
        address = json.loads(executed.read_bytes())["metadata"]["haversack"]["source"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return address if isinstance(address, str) else ""


def check_output(output: Path, notebook: Path) -> None:
    """Raise `InputError` if `output` cannot be written, is a folder, or is the file `notebook` itself.

    The folder of `output` is created if missing; a temporary file in it is the test.
    """
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
            f"{output} cannot be written: {error.strerror}.", "Name a file in a folder that you may write to with -o."
        ) from None


def write(notebook: Any, output: Path) -> None:
    """Write the notebook to `output` by atomic replace. Raises `DiskFull`, and `JobError` for any other failure."""
    write_text(as_json(notebook) + "\n", output)


def as_json(notebook: Any) -> str:
    """Return the notebook as the JSON of its file. Half of a surrogate pair, which UTF-8 cannot encode, is escaped."""
    text: str = nbformat.writes(notebook, version=4)
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def write_page(notebook: Any, output: Path, *, local_images: bool = True) -> None:
    """Write the notebook to the path `output` as one HTML file, by atomic replace.

    With `local_images`, files of this machine that a Markdown cell shows as images are embedded.

    Raises `JobError` if the page cannot be rendered or written, and `DiskFull` if the disk is full.
    """
    from jinja2 import TemplateError
    from nbconvert import HTMLExporter

    try:
        exporter: Any = HTMLExporter  # nbconvert has no type annotations
        page, _ = exporter(embed_images=local_images).from_notebook_node(notebook)
    except (ValueError, OSError, TemplateError) as error:
        reason = str(error).splitlines()[0]
        raise JobError(f"The web page could not be rendered: {reason}", "The executed notebook is complete.") from error
    write_text(_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", page), output)


def write_text(text: str, output: Path) -> None:
    """Write a text file by atomic replace. Raises `DiskFull`, and `JobError` for any other failure."""
    try:
        disk.write(output, text)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"The disk is full, so {output} could not be saved.", "Free space, then retry.") from None
        raise JobError(f"{output} could not be saved: {error.strerror}.", "Name another file with -o.") from None
