"""`haversack secrets`: store, list and remove the secrets that notebooks read (`haversack.notebook.secrets.file`)."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from haversack.cli.options import Json
from haversack.cli.output import show
from haversack.errors import InputError

app = typer.Typer(
    help="Store what notebooks read by userdata.get and UserSecretsClient; no value is ever shown.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The secret's name, such as HF_TOKEN.")]


@app.command("set", epilog="Examples: `haversack secrets set HF_TOKEN`, `haversack secrets set HF_TOKEN < token.txt`")
def secrets_set(name: Name, json: Json = False) -> None:
    """Store a secret; its value is asked for without echo, or read from standard input."""
    from haversack.notebook.secrets import change, file

    change.store(name, _value(name))
    show({"name": name, "file": str(file.path())}, json, f"{name} is stored in {file.path()}.")


@app.command("ls", epilog="Example: `haversack secrets ls --json`")
def secrets_ls(json: Json = False) -> None:
    """List the names of the stored secrets."""
    from haversack.notebook.secrets import file

    names = sorted(file.stored())
    show({"names": names, "file": str(file.path())}, json, "\n".join(names) or "There are no secrets yet.")


@app.command("rm", epilog="Example: `haversack secrets rm HF_TOKEN`")
def secrets_rm(name: Name, json: Json = False) -> None:
    """Remove a secret from the file."""
    from haversack.notebook.secrets import change, file

    change.remove(name)
    show({"name": name, "file": str(file.path())}, json, f"{name} is removed from {file.path()}.")


def _value(name: str) -> str:
    """Return the value that the user types or that standard input holds, without the line end that `echo` adds."""
    if sys.stdin.isatty():
        return str(typer.prompt(f"The value of {name}", hide_input=True))
    try:
        return sys.stdin.read().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise InputError("The secret is not text.", "Encode it first, for example with base64.") from None
