"""The commands `haversack data …`: download, list, describe, remove and publish data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from haversack import progress
from haversack.cli.options import Hub, Json
from haversack.cli.output import listed, show
from haversack.errors import InputError

app = typer.Typer(help="Download, list and publish data sets.", no_args_is_help=True)

_SOURCE = "kaggle:owner/name[@version][/folder], kaggle:c/competition, a URL, drive:/My Drive/…, or a path."


@app.command("get", epilog="Example: `haversack data get kaggle:owner/name --to data --extract`")
def data_get(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=_SOURCE)],
    to: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write to.")] = Path("."),
    extract: Annotated[
        bool, typer.Option("--extract", help="Unpack the files instead of keeping the archive.")
    ] = False,
    hub: Hub = None,
    json: Json = False,
) -> None:
    """Download and verify a data set, or a folder of it, as a zip archive or as files; resumes if interrupted."""
    from haversack.datasets.source import dataset

    with dataset(source, hub=hub) as data:
        path = data.extract(to) if extract else data.save(to)
        show({"source": data.source, "path": str(path), "files": len(data.files)}, json, str(path))


@app.command("ls", epilog="Example: `haversack data ls kaggle:owner/name/train`")
def data_ls(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[SOURCE]", help=f"{_SOURCE} Without it, list what is cached on this machine."),
    ] = None,
    hub: Hub = None,
    json: Json = False,
) -> None:
    """List a data set's files without downloading it, or the data sets in the cache."""
    if source is None:
        from haversack.datasets.cache import list_cached

        found = list_cached()
        show({"kept": [one.json() for one in found]}, json, "\n".join(map(str, found)) or "No data set is cached.")
        return
    from haversack.datasets.source import dataset

    with dataset(source, hub=hub) as data:
        rows = [{"name": member.name, "type": "file", "size": member.size} for member in data.members]
        show({"source": data.source, "files": rows}, json, "\n".join(listed(row) for row in rows))


@app.command("info", epilog="Example: `haversack data info kaggle:owner/name --json`")
def data_info(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=_SOURCE)],
    hub: Hub = None,
    json: Json = False,
) -> None:
    """Show a data set's size, version, licence, how much of it is cached, and which sign-in was used."""
    from haversack.datasets.source import dataset

    with dataset(source, hub=hub) as data:
        found = data.info()
    show(found, json, "\n".join(_info_line(key, value) for key, value in found.items() if value is not None))


@app.command("rm", epilog="Example: `haversack data rm kaggle:owner/name --dry-run`")
def data_rm(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="SOURCE", help="Data sets; without a version, all their versions.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all cached data sets.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be freed.")] = False,
    json: Json = False,
) -> None:
    """Remove data sets and their decoded images from this machine's cache; they can be downloaded again."""
    from haversack.datasets.cache import list_cached, remove
    from haversack.datasets.source import normalize_source

    if everything == bool(sources):
        raise InputError(
            "No data set is named." if not sources else "Both a data set and --all are given.",
            "Name the data sets to remove, or use --all; `haversack data ls` lists them.",
        )
    if everything:
        found = list_cached()
    else:
        found = [one for source in sources or [] for one in list_cached(normalize_source(source))]
    found = list({one.source: one for one in found}.values())
    if not dry_run:
        remove(found)
    freed = sum(one.size for one in found)
    summary = f"{progress.size(freed)} {'would be' if dry_run else 'were'} freed."
    about = {"removed": [one.json() for one in found], "freed": freed, "dry_run": dry_run}
    show(about, json, "\n".join([*map(str, found), summary]) if found else "Nothing to remove: none of it is cached.")


@app.command("put", epilog="Example: `haversack data put images.zip kaggle:me/images --licence CC0-1.0 --public`")
def data_put(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder or a zip archive.")],
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="kaggle:owner/name; with --shard a folder, drive:/My Drive/… or URL.")
    ],
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The title of a new data set; its name by default.")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The licence of a new data set, by Kaggle's name: CC0-1.0, CC-BY-4.0, …"),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public/--private", help="Whether everybody or only its owner may see a new data set.")
    ] = False,
    notes: Annotated[str | None, typer.Option(metavar="TEXT", help="What is new in this version.")] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="2GB", help="Store a folder on a drive as archives of at most this size.")
    ] = None,
    hub: Hub = None,
    json: Json = False,
) -> None:
    """Publish a folder or archive as a data set or its next version, or store a folder elsewhere as archives."""
    from haversack.datasets.publication import put, put_shards

    if shard is not None:
        from haversack.settings import parse_size

        if title or licence or public or notes:
            raise InputError("With --shard there is no title, licence, visibility or notes.", "Leave them out.")
        sharded = put_shards(path, destination, parse_size(shard, "--shard"), hub=hub)
        count = len(sharded.archives)
        summary = f"{count} archive{'s' * (count != 1)}, {progress.size(sharded.size)}; read them as {sharded.source}"
        show(sharded, json, summary)
        return
    published = put(path, destination, title=title, licence=licence, public=public, notes=notes, hub=hub)
    show(published, json, f"{destination} is now at version {published.version}: {published.url}")


def _info_line(key: str, value: Any) -> str:
    """Format a line of `data info`; numbers of bytes get a unit."""
    shown = progress.size(value) if "size" in key or key in ("archive_here", "pixels_here") else value
    return f"{key.replace('_', ' ') + ':':<15} {shown}"
