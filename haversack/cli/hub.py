"""`haversack hub`: serve a folder as a drive and as Kaggle, for tests and work without an account."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from haversack.errors import InputError

commands = typer.Typer()


@commands.command(epilog="Example: `HAVERSACK_TOKEN=… haversack hub --root ~/hub --port 8080`")
def hub(
    root: Annotated[Path, typer.Option(metavar="DIR", help="The folder to serve; created if it does not exist.")],
    port: Annotated[int, typer.Option(metavar="N", help="The port on 127.0.0.1; 0 chooses a free one.")] = 8080,
    token_file: Annotated[
        Path | None, typer.Option(metavar="F", help="A file with the token; the default is HAVERSACK_TOKEN.")
    ] = None,
    latency: Annotated[
        str | None, typer.Option(metavar="20ms", help="Simulate a slow network: delay each call by this time.")
    ] = None,
    bandwidth: Annotated[
        str | None, typer.Option(metavar="100MB", help="Limit the bytes per second, in each direction.")
    ] = None,
    rate_limit: Annotated[
        str | None, typer.Option(metavar="10/s", help="Refuse calls beyond this rate, as Drive does.")
    ] = None,
    quota: Annotated[
        str | None, typer.Option(metavar="15GB", help="The drive's quota; the default is its disk's space.")
    ] = None,
    fail: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:RATE",
            help="Let a share of the calls fail: 500:0.01, 429:0.02, 429x8:0.002 in bursts of eight,"
            " 403.rateLimitExceeded:0.02, cut:0.01, stall:0.001. Can be repeated.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="The random seed that decides which calls fail.")] = 0,
    tls: Annotated[
        bool, typer.Option("--tls", help="Serve TLS too, and a proxy for the names of Google's hosts (for rclone).")
    ] = False,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one JSON line for each answered call.")
    ] = None,
    state: Annotated[Path | None, typer.Option(hidden=True)] = None,
    until_unused: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Serve a folder through the APIs of Google Drive and Kaggle, on this machine only."""
    token = token_of(token_file)
    from haversack import settings
    from haversack.hub.faults import parse_fault_plan
    from haversack.hub.server import serve

    plan = parse_fault_plan(latency, bandwidth, rate_limit, fail or [], seed)
    authority = settings.load().data / "authority" if tls else None
    serve(
        root,
        port,
        token,
        quota=settings.parse_size(quota, "--quota") if quota else None,
        fault_plan=plan,
        log=log,
        tls=authority,
        state=state,
        until_unused=until_unused,
    )


def token_of(file: Path | None) -> str:
    """Return a hub's token: the text of `file`, or, if that is None, the environment variable HAVERSACK_TOKEN.

    Raises `InputError` if the file does not exist or is not text, or if the token is empty.
    """
    if file is not None:
        try:
            token = file.read_text().strip()
        except FileNotFoundError:
            raise InputError(f"There is no token file {file}.", "Write the token to it, with mode 600.") from None
        except UnicodeDecodeError:
            raise InputError(f"{file} is not a text file.", "Write the token to it, with mode 600.") from None
    else:
        token = os.environ.get("HAVERSACK_TOKEN", "").strip()
    if not token:
        raise InputError("A hub needs a token.", "Set HAVERSACK_TOKEN, or give a file with --token-file.")
    return token
