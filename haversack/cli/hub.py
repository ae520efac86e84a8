"""Serving a hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from haversack.errors import InputError

commands = typer.Typer()


@commands.command(epilog="Example: `HAVERSACK_TOKEN=… haversack hub --root ~/hub --port 8080`")
def hub(
    root: Annotated[Path, typer.Option(metavar="DIR", help="The folder to serve; made when it is not there.")],
    port: Annotated[int, typer.Option(metavar="N", help="The port on 127.0.0.1; 0 takes a free one.")] = 8080,
    token_file: Annotated[
        Path | None, typer.Option(metavar="F", help="A file with the token; else HAVERSACK_TOKEN is read.")
    ] = None,
    latency: Annotated[
        str | None, typer.Option(metavar="20ms", help="Rehearse a slow network: each call waits this long.")
    ] = None,
    bandwidth: Annotated[
        str | None, typer.Option(metavar="100MB", help="Rehearse a narrow network: bytes per second, each direction.")
    ] = None,
    rate_limit: Annotated[
        str | None, typer.Option(metavar="10/s", help="Refuse more calls than this, as Drive's quota does.")
    ] = None,
    quota: Annotated[
        str | None, typer.Option(metavar="15GB", help="How much the drive may hold; its disk's space when not given.")
    ] = None,
    fail: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:RATE",
            help="Let this share of calls fail: 500:0.01, 429:0.02, 429x8:0.002 in bursts of eight,"
            " 403.rateLimitExceeded:0.02, cut:0.01, stall:0.001; may be repeated.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Which calls fail is drawn from this.")] = 0,
    tls: Annotated[
        bool, typer.Option("--tls", help="Answer over TLS too, and through a proxy as Google's hosts, for rclone.")
    ] = False,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one JSON line for each call that was answered.")
    ] = None,
    state: Annotated[Path | None, typer.Option(hidden=True)] = None,
    until_unused: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Serve a folder as a drive and as Kaggle, on this machine only."""
    token = token_of(token_file)
    from haversack import settings
    from haversack.hub.faults import rehearsal, size
    from haversack.hub.server import serve

    rehearsed = rehearsal(latency, bandwidth, rate_limit, fail or [], seed)
    authority = settings.load().data / "authority" if tls else None
    serve(
        root,
        port,
        token,
        quota=size(quota, "--quota") if quota else None,
        rehearsal=rehearsed,
        log=log,
        tls=authority,
        state=state,
        until_unused=until_unused,
    )


def token_of(file: Path | None) -> str:
    if file is not None:
        try:
            token = file.read_text().strip()
        except FileNotFoundError:
            raise InputError(f"There is no token file {file}.", "Write the token into it, mode 600.") from None
        except UnicodeDecodeError:
            raise InputError(f"{file} is no text.", "Write the token into it, mode 600.") from None
    else:
        token = os.environ.get("HAVERSACK_TOKEN", "").strip()
    if not token:
        raise InputError("A hub needs a token.", "Put one in HAVERSACK_TOKEN or in a file named with --token-file.")
    return token
