"""The `haversack` command: every subcommand reads its arguments, calls one function, and shows what it returns.

The modules and the commands or parts that each defines:

notebook   run, clock                drive      mount, unmount, drive …     hub        hub
accounts   login, logout, whoami     data       data …                      runs, jobs, env
doctor     doctor                    secrets    secrets …
devices    devices
options    shared by commands        output     how results are printed
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import Annotated

import typer

from haversack.cli import accounts, data, devices, doctor, drive, env, hub, jobs, notebook, runs, secrets
from haversack.errors import HaversackError, InputError, Interrupted

app = typer.Typer(
    help="Run Colab notebooks anywhere: the drive, Kaggle data, the environment and the training come along.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (notebook, drive, hub, accounts, doctor, devices):
    app.add_typer(commands.commands)
app.add_typer(drive.app, name="drive")
app.add_typer(data.app, name="data")
app.add_typer(runs.app, name="runs")
app.add_typer(jobs.app, name="jobs")
app.add_typer(env.app, name="env")
app.add_typer(secrets.app, name="secrets")


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    pass  # main() handles both before typer parses the command


def main(arguments: list[str] | None = None) -> None:
    """Run the command line `arguments`; None for those of this process. Exits by `SystemExit`, except for --version.

    A `HaversackError` or `OSError` is printed on standard error in one line, and the exit status is the error's
    `exit_code`: 2 for an `InputError`, 130 for `Interrupted`, else 1. With --debug the error is raised instead. An
    interrupt that no command turned into an error also ends with a sentence and status 130.
    """
    # What lives at the exit is not searched for garbage, which takes 0.2 s after a job.
    atexit.register(gc.freeze)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if "--version" in arguments[:1]:
        from haversack import __version__

        print(__version__)
        return
    try:
        _check_current_directory()
        app(args=arguments)
    except (HaversackError, OSError) as error:
        if debug:
            raise
        print(f"haversack: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))
    except SystemExit as end:
        if end.code == Interrupted.exit_code:  # typer's status for a KeyboardInterrupt, of which it says nothing
            print("haversack: Interrupted.", file=sys.stderr)
        raise


def _check_current_directory() -> None:
    """Raise `InputError` if the current directory was deleted: every relative path would fail, each in its own way."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise InputError("The current directory was deleted.", "Change to another one: cd ~") from None
