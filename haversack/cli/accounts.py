"""`haversack login`, `logout` and `whoami`: sign in, sign out, and show who is signed in (`haversack.account`)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from haversack.cli.hub import token_of
from haversack.cli.options import Hub, Json
from haversack.cli.output import show
from haversack.errors import InputError

commands = typer.Typer()


@commands.command(epilog="Example: `haversack login google --with client_secret.json`")
def login(
    service: Annotated[str, typer.Argument(metavar="[google|kaggle|hub]", help="What to sign in to.")] = "google",
    url: Annotated[str | None, typer.Argument(metavar="[URL]", help="The hub's address.")] = None,
    way: Annotated[
        str | None,
        typer.Option(
            "--with",
            metavar="WAY",
            help="rclone[:REMOTE], default, colab, or the file of a client or key; for Kaggle a kaggle.json.",
        ),
    ] = None,
    narrow: Annotated[
        bool, typer.Option("--narrow", help="Ask for access only to files that haversack makes.")
    ] = False,
    root: Annotated[
        str | None, typer.Option(metavar="ID", help="The shared drive or folder to use as My Drive.")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser on this machine.")] = True,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="F", help="A file with the token. Default for a hub: HAVERSACK_TOKEN, else it asks."),
    ] = None,
    json: Json = False,
) -> None:
    """Sign in to Google's drive, to Kaggle or to a hub; the drive of Google or the hub becomes the default."""
    from haversack import account

    if service == "hub":
        signed_in = account.login_hub(_given(url), _token_for(token_file))
    elif url is not None:
        raise InputError(f"{service} has no address.", "To sign in to a hub: haversack login hub URL")
    else:
        if service == "kaggle" and token_file is not None:
            way = way or str(token_file)
        signed_in = account.login(service, way=way, narrow=narrow, root=root, browser=browser)
    show(signed_in.json(), json, str(signed_in))


@commands.command(epilog="Example: `haversack logout google`")
def logout(
    service: Annotated[
        str | None,
        typer.Argument(metavar="[google|kaggle|hub|URL]", help="What to sign out of; default: everything."),
    ] = None,
    json: Json = False,
) -> None:
    """Delete the sign-ins that `haversack login` stored; one that Google gave to haversack is revoked too."""
    from haversack import account

    done = account.logout(service)
    show({"done": done}, json, "\n".join(done) or "Nobody was signed in.")


@commands.command(epilog="Example: `haversack whoami --json`")
def whoami(hub: Hub = None, json: Json = False) -> None:
    """Show who is signed in to the drive and to Kaggle, and where the sign-in was found."""
    from haversack import account

    found = account.whoami(hub)
    show({"accounts": [one.json() for one in found]}, json, "\n".join(map(str, found)))


def _given(url: str | None) -> str:
    if url is None:
        raise InputError("No hub was named.", "Give its address: haversack login hub http://127.0.0.1:8080")
    return url


def _token_for(file: Path | None) -> str:
    """A hub's token from a file, the environment or, at a terminal, the user."""
    if file is None and not os.environ.get("HAVERSACK_TOKEN") and sys.stdin.isatty():
        return str(typer.prompt("The hub's token", hide_input=True)).strip()
    return token_of(file)
