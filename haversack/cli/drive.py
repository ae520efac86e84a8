"""`haversack mount` and `unmount`, and `haversack drive …`: use a drive without a mount, repair it, show its state."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from haversack import progress
from haversack.cli.options import Hub, Json
from haversack.cli.output import listed, show
from haversack.errors import InputError

_LINES_AT_ONCE = 1000

commands = typer.Typer()
app = typer.Typer(help="Work with the drive without mounting it.", no_args_is_help=True)


@commands.command(epilog='Example: `haversack mount ~/drive && ls ~/drive/"My Drive"`')
def mount(
    mountpoint: Annotated[Path, typer.Argument(metavar="DIR", help="An empty folder, or one to create.")],
    hub: Hub = None,
    readonly: Annotated[bool, typer.Option("--readonly", help="Refuse every write.")] = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay in the foreground; unmount when interrupted.")
    ] = False,
) -> None:
    """Mount the drive as files; returns once it is usable."""
    from haversack.drive.fuse.mount import mount as mount_drive

    mounted = mount_drive(mountpoint, hub=hub, readonly=readonly, foreground=foreground)
    if mounted.note:
        print(mounted.note, file=sys.stderr)
    if not foreground:
        print(f"Mounted at {mounted.mountpoint}; the bytes are on {mounted.where}.")


@commands.command(epilog="Example: `haversack unmount ~/drive`")
def unmount(
    mountpoint: Annotated[Path, typer.Argument(metavar="DIR", help="Where the drive is mounted.")],
) -> None:
    """Unmount the drive; returns once everything written is on it."""
    from haversack.drive.fuse.mount import unmount as unmount_drive

    unmount_drive(mountpoint)
    print(f"Unmounted {mountpoint}; everything written is on the drive.")


@app.command("ls", epilog="Example: `haversack drive ls photos --recursive --json`")
def drive_ls(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A folder or file below My Drive.")] = "",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="List folders inside it too.")] = False,
    hub: Hub = None,
    json: Json = False,
) -> None:
    """List a folder of the drive."""
    from haversack.drive.filesystem import contents

    rows = (
        {"name": name, "type": "directory" if file.is_folder else "file", "size": 0 if file.is_folder else file.size}
        for name, file in contents(path, hub, recursive=recursive)
    )
    if json:
        show({"entries": list(rows)}, True, "")
    while lines := [listed(row) for row in islice(rows, _LINES_AT_ONCE)]:
        print("\n".join(lines), flush=True)


@app.command("get", epilog="Example: `haversack drive get checkpoints/best.h5 .`")
def drive_get(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file or folder below My Drive.")],
    to: Annotated[Path, typer.Argument(metavar="TO", help="The target on this machine.")] = Path("."),
    hub: Hub = None,
) -> None:
    """Copy a file or folder from the drive to this machine."""
    from haversack.drive.filesystem import fetch

    print(fetch(path, to, hub=hub))


@app.command("put", epilog="Example: `haversack drive put results/ projects/results`")
def drive_put(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="A file or folder on this machine.")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="The target below My Drive.")] = "",
    hub: Hub = None,
) -> None:
    """Copy a file or folder from this machine to the drive."""
    from haversack.drive.filesystem import store

    print(store(source, path, hub=hub))


@app.command("rm", epilog="Example: `haversack drive rm old-checkpoints --recursive`")
def drive_rm(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file or folder below My Drive.")],
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Remove a folder and everything in it.")] = False,
    hub: Hub = None,
) -> None:
    """Move a file or folder to the drive's trash."""
    from haversack.drive.filesystem import DriveFileSystem

    DriveFileSystem(hub=hub).rm(path, recursive=recursive)


@app.command("status", epilog="Example: `haversack drive status ~/drive --json`")
def drive_status(
    mountpoint: Annotated[Path | None, typer.Argument(metavar="DIR", help="One mount; all if none is given.")] = None,
    json: Json = False,
) -> None:
    """Show each mount's pending uploads, those that the drive refused and why, and transfer rates."""
    from haversack.drive.fuse.status import status

    found = status(mountpoint)
    show(found, json, str(found))


@app.command("doctor", epilog="Example: `haversack drive doctor photos`")
def drive_doctor(
    folder: Annotated[
        str, typer.Argument(metavar="[FOLDER]", help="A folder below My Drive; all of My Drive if none is given.")
    ] = "",
    hub: Hub = None,
    json: Json = False,
) -> None:
    """Find out why the drive is slow or full and what fixes it; changes nothing. The machine: `haversack doctor`."""
    from haversack.drive.care.doctor import examine

    found = examine(folder, hub)
    show(found.json(), json, str(found))
    if not found.reachable:
        sys.exit(1)


@app.command("trash", epilog="Example: `haversack drive trash --empty`")
def drive_trash(
    restore: Annotated[
        str | None, typer.Option("--restore", metavar="NAME", help="Restore a file or folder, by name, path or id.")
    ] = None,
    empty: Annotated[bool, typer.Option("--empty", help="Delete everything in the trash for good.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Empty it without asking.")] = False,
    hub: Hub = None,
    json: Json = False,
) -> None:
    """List the drive's trash, restore something from it, or empty it."""
    from haversack.drive.care import trash

    if restore is not None:
        if empty:
            raise InputError("Both --restore and --empty are given.", "Give one of them.")
        path = trash.restore(restore, hub)
        show({"restored": path}, json, f"Restored: {path}")
        return
    found = trash.content(hub)
    rows = [
        {"name": file.name, "type": "directory" if file.is_folder else "file", "size": file.size, "id": file.id}
        for file in found.files
    ]
    total = f"{len(rows):,} in the trash, {progress.size(found.size)} in all"
    if empty and rows:
        if not yes and not sys.stdin.isatty():
            raise InputError(f"{total}: no terminal to ask in before deleting.", "Give --yes to delete it for good.")
        if not yes and not typer.confirm(f"{total}. Delete it for good?", err=True):
            return
        trash.empty(hub)
    result = {"entries": rows, "size": found.size, "emptied": empty}
    lines = [f"Deleted for good: {total}."] if empty else [*map(listed, rows), f"{total}."]
    show(result, json, "\n".join(lines) if rows else "The trash is empty.")


@app.command("quota", epilog="Example: `haversack drive quota --json`")
def drive_quota(hub: Hub = None, json: Json = False) -> None:
    """Show the drive's used space and its limit."""
    from haversack.drive.care import trash

    found = trash.quota(hub)
    limit = f" of {progress.size(found.limit)}" if found.limit is not None else ""
    show(found, json, f"{progress.size(found.used)}{limit} used, {progress.size(found.in_trash)} of it in the trash.")


@app.command("spread", epilog="Example: `haversack drive spread photos --dry-run`")
def drive_spread(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A crowded folder below My Drive.")],
    by: Annotated[
        str, typer.Option(metavar="RULE", help="How a file's name determines its subfolder: hash or name.")
    ] = "hash",
    size: Annotated[int, typer.Option(metavar="N", help="Files per subfolder, approximately.")] = 1000,
    undo: Annotated[bool, typer.Option("--undo", help="Move every file back.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done and how long it takes; change nothing.")
    ] = False,
    hub: Hub = None,
    json: Json = False,
) -> None:
    """Move a crowded folder's files into subfolders, or back; resumes where it was interrupted."""
    from haversack.drive.care import spread

    if undo:
        report = spread.undo(folder, hub=hub, dry_run=dry_run)
    else:
        report = spread.spread(folder, hub=hub, by=by, size=size, dry_run=dry_run)
    show(report, json, str(report))
