"""The drive: its mount, and `haversack drive`."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from haversack import progress
from haversack.cli.options import Hub, Json
from haversack.cli.output import listed, show
from haversack.errors import InputError

_LINES_AT_ONCE = 1000

commands = typer.Typer()
app = typer.Typer(help="Look at the drive and move files without mounting it.", no_args_is_help=True)


@commands.command(epilog='Example: `haversack mount ~/drive && ls ~/drive/"My Drive"`')
def mount(
    mountpoint: Annotated[Path, typer.Argument(metavar="DIR", help="An empty folder, or one to be made.")],
    hub: Hub = None,
    readonly: Annotated[bool, typer.Option("--readonly", help="Refuse every write.")] = False,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay, and unmount when interrupted.")] = False,
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
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Also what lies in its folders.")] = False,
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
    to: Annotated[Path, typer.Argument(metavar="TO", help="Where it goes on this machine.")] = Path("."),
    hub: Hub = None,
) -> None:
    """Copy a file or folder from the drive to this machine."""
    from haversack.drive.filesystem import fetch

    print(fetch(path, to, hub=hub))


@app.command("put", epilog="Example: `haversack drive put results/ projects/results`")
def drive_put(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="A file or folder on this machine.")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="Its place below My Drive.")] = "",
    hub: Hub = None,
) -> None:
    """Copy a file or folder from this machine to the drive."""
    from haversack.drive.filesystem import store

    print(store(source, path, hub=hub))


@app.command("rm", epilog="Example: `haversack drive rm old-checkpoints --recursive`")
def drive_rm(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file or folder below My Drive.")],
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Also a folder with what is in it.")] = False,
    hub: Hub = None,
) -> None:
    """Move a file or folder to the drive's trash."""
    _filesystem(hub).rm(path, recursive=recursive)


@app.command("status", epilog="Example: `haversack drive status ~/drive --json`")
def drive_status(
    mountpoint: Annotated[Path | None, typer.Argument(metavar="DIR", help="One mount; all if none is given.")] = None,
    json: Json = False,
) -> None:
    """Say what the mounts still have to bring to the drive, what the drive refused and why, and how fast it goes."""
    from haversack.drive.fuse.status import status

    found = status(mountpoint)
    show(found, json, str(found))


@app.command("doctor", epilog="Example: `haversack drive doctor photos`")
def drive_doctor(
    folder: Annotated[str, typer.Argument(metavar="[FOLDER]", help="A folder below My Drive; all of it if none.")] = "",
    hub: Hub = None,
    json: Json = False,
) -> None:
    """Say why the drive is slow or full, and which command mends it; only reads."""
    from haversack.drive.care.doctor import examine

    found = examine(folder, hub)
    show(found.json(), json, str(found))
    if not found.reachable:
        sys.exit(1)


@app.command("trash", epilog="Example: `haversack drive trash --empty`")
def drive_trash(
    restore: Annotated[
        str | None, typer.Option("--restore", metavar="NAME", help="Put this back to where it was: a name, path or id.")
    ] = None,
    empty: Annotated[bool, typer.Option("--empty", help="Delete for good what it holds.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before emptying it.")] = False,
    hub: Hub = None,
    json: Json = False,
) -> None:
    """List what is in the drive's trash, put something back, or empty it."""
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
    said = f"{len(rows):,} in the trash, {progress.size(found.size)} in all"
    if empty and rows:
        if not yes and not sys.stdin.isatty():
            raise InputError(f"{said}: nobody is there to be asked.", "Say --yes to delete it for good.")
        if not yes and not typer.confirm(f"{said}. Delete it for good?", err=True):
            return
        trash.empty(hub)
    about = {"entries": rows, "size": found.size, "emptied": empty}
    lines = [f"Deleted for good: {said}."] if empty else [*map(listed, rows), f"{said}."]
    show(about, json, "\n".join(lines) if rows else "The trash is empty.")


@app.command("quota", epilog="Example: `haversack drive quota --json`")
def drive_quota(hub: Hub = None, json: Json = False) -> None:
    """Say how much the drive holds, and how much it may hold."""
    from haversack.drive.care import trash

    found = trash.quota(hub)
    limit = f" of {progress.size(found.limit)}" if found.limit is not None else ""
    show(found, json, f"{progress.size(found.used)}{limit} used, {progress.size(found.in_trash)} of it in the trash.")


@app.command("spread", epilog="Example: `haversack drive spread photos --dry-run`")
def drive_spread(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A crowded folder below My Drive.")],
    by: Annotated[
        str, typer.Option(metavar="RULE", help="What leads from a name to its subfolder: hash or name.")
    ] = "hash",
    size: Annotated[int, typer.Option(metavar="N", help="About how many files a subfolder gets.")] = 1000,
    undo: Annotated[bool, typer.Option("--undo", help="Move every file back to where it was.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done, and how long it takes.")
    ] = False,
    hub: Hub = None,
    json: Json = False,
) -> None:
    """Move a crowded folder's files into subfolders, or back; goes on where it was cut off."""
    from haversack.drive.care import spread

    if undo:
        report = spread.undo(folder, hub=hub, dry_run=dry_run)
    else:
        report = spread.spread(folder, hub=hub, by=by, size=size, dry_run=dry_run)
    show(report, json, str(report))


def _filesystem(hub: str | None) -> Any:
    from haversack.drive.filesystem import DriveFileSystem

    return DriveFileSystem(hub=hub)
