"""`haversack env`: what a notebook needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from haversack.cli.options import Json
from haversack.cli.output import show

app = typer.Typer(help="Show what a notebook needs.", no_args_is_help=True)


@app.command("show", epilog="Example: `haversack env show train.ipynb`")
def env_show(
    notebook: Annotated[Path, typer.Argument(metavar="NB.ipynb", help="The notebook; none of its cells is executed.")],
    json: Json = False,
) -> None:
    """Show what a notebook imports, which package provides each import and why, and what is unknown."""
    from haversack.environment import report
    from haversack.environment.imports import code_cells
    from haversack.environment.requirements import requirements_of
    from haversack.notebook.record import document

    content = document.read(notebook)
    found = requirements_of(code_cells(content), content["metadata"], notebook.resolve().parent)
    show(report.as_json(found), json, report.as_text(found))
