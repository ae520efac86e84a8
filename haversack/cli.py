"""The `haversack` command: every subcommand reads its arguments, calls one function, and shows what it returns."""

from __future__ import annotations

import json as jsonlib
import os
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from haversack import progress
from haversack.errors import HaversackError, InputError

app = typer.Typer(
    help="Run Colab notebooks anywhere: the drive, Kaggle data, the environment and the training come along.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
drive_app = typer.Typer(help="Look at the drive and move files without mounting it.", no_args_is_help=True)
data_app = typer.Typer(help="Fetch, look into and publish data sets.", no_args_is_help=True)
app.add_typer(drive_app, name="drive")
app.add_typer(data_app, name="data")
runs_app = typer.Typer(help="Look at trainings: their sessions, epochs and checkpoints.", invoke_without_command=True)
app.add_typer(runs_app, name="runs")
jobs_app = typer.Typer(help="Look at executed notebooks, and remove what is kept of them.", invoke_without_command=True)
app.add_typer(jobs_app, name="jobs")

Hub = Annotated[
    str | None,
    typer.Option(
        "--hub",
        metavar="URL",
        help="The hub for the drive and Kaggle, `embedded`, or `google`; a hub's token is read from HAVERSACK_TOKEN.",
        envvar="HAVERSACK_HUB",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    pass  # both are handled in main(), before any command is looked up


@app.command(epilog="Example: `haversack run train.ipynb -o done.ipynb --upload labels.csv --session 12h`")
def run(
    notebook: Annotated[
        Path | None, typer.Argument(metavar="NB.ipynb", help="The notebook to execute; none with --resume.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="OUT", help="Where the executed notebook goes.")
    ] = None,
    hub: Hub = None,
    upload: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A file that files.upload() receives; may be repeated.")
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option(metavar="k=v", help="A variable's value in the notebook; may be repeated.")
    ] = None,
    cores: Annotated[int | None, typer.Option(metavar="N", help="Simulate N accelerator cores on the CPU.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the result as a web page.")] = None,
    session: Annotated[
        str | None, typer.Option(metavar="12h", help="End each session after this long, as Colab would, and go on.")
    ] = None,
    cell_timeout: Annotated[
        str | None, typer.Option(metavar="30m", help="Take a cell for hung that is not heard of for this long.")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Leave model.fit as it is: it will not go on.")] = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Kill the kernel once in the middle of an epoch, to see that it goes on.")
    ] = False,
    resume: Annotated[
        str | None, typer.Option(metavar="JOB", help="Go on with a job that ended early, here or elsewhere.")
    ] = None,
    json: Json = False,
) -> None:
    """Execute a Colab notebook here, unchanged, over as many sessions as it takes."""
    from haversack.notebook import job
    from haversack.training import clock

    limit = clock.seconds(session) if session else None
    timeout = clock.seconds(cell_timeout) if cell_timeout else None
    if resume:
        if notebook or upload or param or cores or plain or rehearse:
            raise InputError(
                "A job that is resumed has its notebook, uploads, parameters, cores, --plain and --rehearse already.",
                "Give --resume with --output, --html, --hub, --session or --cell-timeout only.",
            )
        report = job.resume(resume, output, hub=hub, html=html, session=limit, cell_timeout=timeout)
    elif notebook:
        report = job.run(
            notebook,
            output,
            hub=hub,
            uploads=upload or [],
            parameters=job.parse_parameters(param or []),
            cores=cores,
            html=html,
            session=limit,
            cell_timeout=timeout,
            plain=plain,
            rehearse=rehearse,
        )
    else:
        raise InputError("No notebook is given.", "Name one, or a job to go on with: haversack run --resume JOB")
    _show(report.json(), json, report.summary)
    if report.failure is not None:
        raise report.failure


@app.command(epilog="Example: `haversack clock --json`")
def clock(json: Json = False) -> None:
    """Say what ends this session, and when."""
    from haversack import place
    from haversack.training import clock as clock_

    end = clock_.end()
    found = {"place": place.here(), "ends": end and end.at, "remaining": end and end.remaining, "by": end and end.by}
    _show(found, json, str(end) if end else "Nothing is known to end this session.")


@app.command(epilog='Example: `haversack mount ~/drive && ls ~/drive/"My Drive"`')
def mount(
    mountpoint: Annotated[Path, typer.Argument(metavar="DIR", help="An empty folder, or one to be made.")],
    hub: Hub = None,
    readonly: Annotated[bool, typer.Option("--readonly", help="Refuse every write.")] = False,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay, and unmount when interrupted.")] = False,
) -> None:
    """Mount the drive as files; returns once it is usable."""
    from haversack.drive.mount import mount as mount_drive

    mounted = mount_drive(mountpoint, hub=hub, readonly=readonly, foreground=foreground)
    if mounted.note:
        print(mounted.note, file=sys.stderr)
    if not foreground:
        print(f"Mounted at {mounted.mountpoint}; the bytes are on {mounted.where}.")


@app.command(epilog="Example: `haversack unmount ~/drive`")
def unmount(
    mountpoint: Annotated[Path, typer.Argument(metavar="DIR", help="Where the drive is mounted.")],
) -> None:
    """Unmount the drive; returns once everything written is on it."""
    from haversack.drive.mount import unmount as unmount_drive

    unmount_drive(mountpoint)
    print(f"Unmounted {mountpoint}; everything written is on the drive.")


@app.command(epilog="Example: `HAVERSACK_TOKEN=… haversack hub --root ~/hub --port 8080`")
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
    token = _hub_token(token_file)
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


@app.command(epilog="Example: `haversack login google --with client_secret.json`")
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
        bool, typer.Option("--narrow", help="Ask for the files only that haversack makes; others do not appear.")
    ] = False,
    root: Annotated[
        str | None, typer.Option(metavar="ID", help="The shared drive or folder that is meant instead of My Drive.")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser on this machine.")] = True,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="F", help="A file with the token; else, for a hub, HAVERSACK_TOKEN; else it asks."),
    ] = None,
    json: Json = False,
) -> None:
    """Sign in to Google's drive, to Kaggle or to a hub; the drive is there from now on where none is named."""
    from haversack import account

    if service == "hub":
        signed_in = account.login_hub(_given(url), _token_for(token_file))
    elif url is not None:
        raise InputError(f"{service} takes no address.", "To sign in to a hub: haversack login hub URL")
    else:
        if service == "kaggle" and token_file is not None:
            way = way or str(token_file)
        signed_in = account.login(service, way=way, narrow=narrow, root=root, browser=browser)
    _show(signed_in.json(), json, str(signed_in))


@app.command(epilog="Example: `haversack logout google`")
def logout(
    service: Annotated[
        str | None,
        typer.Argument(metavar="[google|kaggle|hub|URL]", help="What to sign out of; everything when not given."),
    ] = None,
    json: Json = False,
) -> None:
    """Forget what `haversack login` keeps; Google is told to forget it too."""
    from haversack import account

    done = account.logout(service)
    _show({"done": done}, json, "\n".join(done) or "Nobody was signed in.")


@app.command(epilog="Example: `haversack whoami --json`")
def whoami(hub: Hub = None, json: Json = False) -> None:
    """Say who is signed in to the drive and to Kaggle, and what that came from."""
    from haversack import account

    found = account.whoami(hub)
    _show({"accounts": [one.json() for one in found]}, json, "\n".join(map(str, found)))


@drive_app.command("ls", epilog="Example: `haversack drive ls photos --json`")
def drive_ls(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A folder or file below My Drive.")] = "",
    hub: Hub = None,
    json: Json = False,
) -> None:
    """List a folder of the drive."""
    entries = _filesystem(hub).ls(path, detail=True)
    rows = [{"name": entry["name"], "type": entry["type"], "size": entry["size"]} for entry in entries]
    _show({"entries": rows}, json, "\n".join(_listed(row) for row in rows))


@drive_app.command("get", epilog="Example: `haversack drive get checkpoints/best.h5 .`")
def drive_get(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file or folder below My Drive.")],
    to: Annotated[Path, typer.Argument(metavar="TO", help="Where it goes on this machine.")] = Path("."),
    hub: Hub = None,
) -> None:
    """Copy a file or folder from the drive to this machine."""
    from haversack.drive.filesystem import fetch

    print(fetch(path, to, hub=hub))


@drive_app.command("put", epilog="Example: `haversack drive put results/ projects/results`")
def drive_put(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="A file or folder on this machine.")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="Its place below My Drive.")] = "",
    hub: Hub = None,
) -> None:
    """Copy a file or folder from this machine to the drive."""
    from haversack.drive.filesystem import store

    print(store(source, path, hub=hub))


@drive_app.command("rm", epilog="Example: `haversack drive rm old-checkpoints --recursive`")
def drive_rm(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file or folder below My Drive.")],
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Also a folder with what is in it.")] = False,
    hub: Hub = None,
) -> None:
    """Move a file or folder to the drive's trash."""
    _filesystem(hub).rm(path, recursive=recursive)


@drive_app.command("status", epilog="Example: `haversack drive status ~/drive --json`")
def drive_status(
    mountpoint: Annotated[Path | None, typer.Argument(metavar="DIR", help="One mount; all if none is given.")] = None,
    json: Json = False,
) -> None:
    """Say what the mounts still have to bring to the drive, what the drive refused and why, and how fast it goes."""
    from haversack.drive.status import status

    found = status(mountpoint)
    _show(found, json, str(found))


@drive_app.command("doctor", epilog="Example: `haversack drive doctor photos`")
def drive_doctor(
    folder: Annotated[str, typer.Argument(metavar="[FOLDER]", help="A folder below My Drive; all of it if none.")] = "",
    hub: Hub = None,
    json: Json = False,
) -> None:
    """Say why the drive is slow or full, and which command mends it; only reads."""
    from haversack.drive.doctor import examine

    found = examine(folder, hub)
    _show(found.json(), json, str(found))
    if not found.reachable:
        sys.exit(1)


@drive_app.command("trash", epilog="Example: `haversack drive trash --empty`")
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
    from haversack.drive import trash

    if restore is not None:
        if empty:
            raise InputError("Both --restore and --empty are given.", "Give one of them.")
        path = trash.restore(restore, hub)
        _show({"restored": path}, json, f"Restored: {path}")
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
    lines = [f"Deleted for good: {said}."] if empty else [*map(_listed, rows), f"{said}."]
    _show(about, json, "\n".join(lines) if rows else "The trash is empty.")


@drive_app.command("quota", epilog="Example: `haversack drive quota --json`")
def drive_quota(hub: Hub = None, json: Json = False) -> None:
    """Say how much the drive holds, and how much it may hold."""
    from haversack.drive import trash

    found = trash.quota(hub)
    limit = f" of {progress.size(found.limit)}" if found.limit is not None else ""
    _show(found, json, f"{progress.size(found.used)}{limit} used, {progress.size(found.in_trash)} of it in the trash.")


@drive_app.command("spread", epilog="Example: `haversack drive spread photos --dry-run`")
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
    from haversack.drive import spread

    if undo:
        report = spread.undo(folder, hub=hub, dry_run=dry_run)
    else:
        report = spread.spread(folder, hub=hub, by=by, size=size, dry_run=dry_run)
    _show(report, json, str(report))


_SOURCE = "kaggle:owner/name[@version][/folder], kaggle:c/competition, a URL, drive:/My Drive/…, or a path."


@data_app.command("get", epilog="Example: `haversack data get kaggle:owner/name --to data --extract`")
def data_get(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=_SOURCE)],
    to: Annotated[Path, typer.Option(metavar="DIR", help="The folder it goes to.")] = Path("."),
    extract: Annotated[
        bool, typer.Option("--extract", help="Unpack the files instead of keeping the archive.")
    ] = False,
    hub: Hub = None,
    json: Json = False,
) -> None:
    """Download a data set or a folder of it, verified; goes on where it stopped."""
    from haversack.datasets.source import dataset

    with dataset(source, hub=hub) as data:
        path = data.extract(to) if extract else data.save(to)
        _show({"source": data.source, "path": str(path), "files": len(data.files)}, json, str(path))


@data_app.command("ls", epilog="Example: `haversack data ls kaggle:owner/name/train`")
def data_ls(
    source: Annotated[
        str | None, typer.Argument(metavar="[SOURCE]", help=f"What is kept on this machine if none; {_SOURCE}")
    ] = None,
    hub: Hub = None,
    json: Json = False,
) -> None:
    """List a data set's files without downloading it."""
    if source is None:
        from haversack.datasets.cache import kept

        found = kept()
        _show({"kept": [one.json() for one in found]}, json, "\n".join(map(str, found)) or "Nothing is kept.")
        return
    from haversack.datasets.source import dataset

    with dataset(source, hub=hub) as data:
        rows = [{"name": member.name, "type": "file", "size": member.size} for member in data.members]
        _show({"source": data.source, "files": rows}, json, "\n".join(_listed(row) for row in rows))


@data_app.command("info", epilog="Example: `haversack data info kaggle:owner/name --json`")
def data_info(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=_SOURCE)],
    hub: Hub = None,
    json: Json = False,
) -> None:
    """Say how large a data set is, its version and licence, what of it is here, and which sign-in was used."""
    from haversack.datasets.source import dataset

    with dataset(source, hub=hub) as data:
        found = data.info()
    _show(found, json, "\n".join(_told(key, value) for key, value in found.items() if value is not None))


@data_app.command("rm", epilog="Example: `haversack data rm kaggle:owner/name --dry-run`")
def data_rm(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="SOURCE", help="Data sets; without a version, every version.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every data set that is kept here.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be freed.")] = False,
    json: Json = False,
) -> None:
    """Remove from this machine what was fetched and decoded of data sets; it can all be had again."""
    from haversack.datasets.cache import kept, remove
    from haversack.datasets.source import named

    if everything == bool(sources):
        raise InputError(
            "No data set is named." if not sources else "Both a data set and --all are given.",
            "Name those to be removed, or give --all; `haversack data ls` lists them.",
        )
    found = kept() if everything else [one for source in sources or [] for one in kept(named(source))]
    found = list({one.source: one for one in found}.values())
    if not dry_run:
        remove(found)
    freed = sum(one.size for one in found)
    said = f"{progress.size(freed)} {'would be' if dry_run else 'are'} free again."
    about = {"removed": [one.json() for one in found], "freed": freed, "dry_run": dry_run}
    _show(about, json, "\n".join([*map(str, found), said]) if found else "Nothing of that is kept here.")


@data_app.command("put", epilog="Example: `haversack data put images.zip kaggle:me/images --licence CC0-1.0 --public`")
def data_put(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder or a zip archive.")],
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="kaggle:owner/name; with --shard a folder, drive:/My Drive/… or URL.")
    ],
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A new set's title; the name where none is given.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(metavar="NAME", help="A new set's licence as Kaggle calls it: CC0-1.0, CC-BY-4.0, …")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public/--private", help="Who may see a new set: everybody, or its owner.")
    ] = False,
    notes: Annotated[str | None, typer.Option(metavar="TEXT", help="What is new in this version.")] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="2GB", help="Put a folder on a drive as archives of at most this size.")
    ] = None,
    hub: Hub = None,
    json: Json = False,
) -> None:
    """Publish a folder or archive as a data set: a new one, or its next version; or put it elsewhere as archives."""
    from haversack.datasets.publication import put, put_shards

    if shard is not None:
        from haversack.hub.faults import size

        if title or licence or public or notes:
            raise InputError("Archives in a folder have no title, licence, visibility or notes.", "Leave them out.")
        sharded = put_shards(path, destination, size(shard, "--shard"), hub=hub)
        count = len(sharded.archives)
        said = f"{count} archive{'s' * (count != 1)}, {progress.size(sharded.size)}; read them as {sharded.source}"
        _show(sharded, json, said)
        return
    published = put(path, destination, title=title, licence=licence, public=public, notes=notes, hub=hub)
    _show(published, json, f"{destination} is now at version {published.version}: {published.url}")


Where = Annotated[
    str | None, typer.Option(metavar="DIR|URL", help="Where the checkpoints are kept, when not in the data folder.")
]


@runs_app.callback()
def runs_options(context: typer.Context, where: Where = None, json: Json = False) -> None:
    """List the trainings of this machine."""
    if context.invoked_subcommand is None:
        from haversack.training.runs import every

        found = every(where)
        _show({"runs": [run.json() for run in found]}, json, "\n".join(map(str, found)) or "There are no runs yet.")


@runs_app.command("show", epilog="Example: `haversack runs show rsna`")
def runs_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The run's name.")],
    where: Where = None,
    json: Json = False,
) -> None:
    """Show a training's sessions and epochs, and verify its checkpoints."""
    from haversack.training.runs import show, verified

    run, checkpoints = show(name, where), verified(name, where)
    _show(
        {**run.json(), "checkpoints": [asdict(one) for one in checkpoints]},
        json,
        "\n".join([run.report, *map(str, checkpoints)]),
    )


@runs_app.command("plot", epilog="Example: `haversack runs plot rsna -o rsna.png`")
def runs_plot(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The run's name.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="OUT.png", help="The picture; NAME.png when not given.")
    ] = None,
    where: Where = None,
) -> None:
    """Draw a training's loss over its sessions, with the kills marked."""
    from haversack.training.runs import plot

    print(plot(name, where).save(output or Path(f"{name}.png")))


@runs_app.command("export", epilog="Example: `haversack runs export rsna rsna.keras --checkpoint best`")
def runs_export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The run's name.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="A file that ends in .weights.h5 or .keras.")],
    checkpoint: Annotated[
        str, typer.Option(metavar="STEP|best|latest", help="Which checkpoint; `runs show` lists them.")
    ] = "latest",
    where: Where = None,
) -> None:
    """Write a checkpoint of a training as Keras's own file: weights, or the whole model."""
    from haversack.training.export import export, which

    print(export(name, output, where, checkpoint=which(checkpoint)))


@jobs_app.callback()
def jobs_options(context: typer.Context, json: Json = False) -> None:
    """List the jobs of this machine: done or not, their sessions and size."""
    if context.invoked_subcommand is None:
        from haversack.notebook.jobs import every

        found = every()
        _show({"jobs": [job.json() for job in found]}, json, "\n".join(map(str, found)) or "There are no jobs yet.")


@jobs_app.command("rm", epilog="Example: `haversack jobs rm --done`")
def jobs_rm(
    names: Annotated[list[str] | None, typer.Argument(metavar="JOB", help="The jobs' names.")] = None,
    done: Annotated[bool, typer.Option("--done", help="Every job whose notebook is done.")] = False,
) -> None:
    """Remove jobs: their folders with downloads and /content, and the trainings named by them."""
    from haversack.notebook.jobs import every, remove

    if not names and not done:
        raise InputError("No job is named.", "Name one, or give --done for all that are done.")
    chosen = [*(names or []), *(job.name for job in every() if done and job.state == "done")]
    for job in remove(dict.fromkeys(chosen)):
        print(f"Removed {job.name}, {progress.size(job.size)}.")


def main(arguments: list[str] | None = None) -> None:
    """Run the command; an error of ours is one line on standard error and a non-zero exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if "--version" in arguments[:1]:
        from haversack import __version__

        print(__version__)
        return
    try:
        app(args=arguments)
    except (HaversackError, OSError) as error:
        if debug:
            raise
        print(f"haversack: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))


def _hub_token(file: Path | None) -> str:
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


def _given(url: str | None) -> str:
    if url is None:
        raise InputError("No hub is named.", "Give its address: haversack login hub http://127.0.0.1:8080")
    return url


def _token_for(file: Path | None) -> str:
    """A hub's token from a file, the environment or, at a terminal, the user."""
    if file is None and not os.environ.get("HAVERSACK_TOKEN") and sys.stdin.isatty():
        return str(typer.prompt("The hub's token", hide_input=True)).strip()
    return _hub_token(file)


def _filesystem(hub: str | None) -> Any:
    from haversack.drive.filesystem import DriveFileSystem

    return DriveFileSystem(hub=hub)


def _show(result: Any, as_json: bool, text: str) -> None:
    if as_json:
        print(jsonlib.dumps(asdict(result) if is_dataclass(result) and not isinstance(result, type) else result))
    elif text:
        print(text)


def _listed(row: dict[str, Any]) -> str:
    size = "" if row["type"] == "directory" else progress.size(row["size"])
    return f"{size:>10}  {row['name']}{'/' if row['type'] == 'directory' else ''}"


def _told(key: str, value: Any) -> str:
    """A line of `data info`; what counts bytes is said in their units."""
    shown = progress.size(value) if "size" in key or key in ("archive_here", "pixels_here") else value
    return f"{key.replace('_', ' ') + ':':<15} {shown}"
