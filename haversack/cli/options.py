"""The options `--hub` and `--json`, as types for the parameters of the commands that share them."""

from __future__ import annotations

from typing import Annotated

import typer

Hub = Annotated[
    str | None,
    typer.Option(
        "--hub",
        metavar="URL",
        help="The hub for the drive and Kaggle, `embedded`, or `google`. A hub's token is read from HAVERSACK_TOKEN.",
        envvar="HAVERSACK_HUB",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]
