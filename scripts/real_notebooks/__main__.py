"""Run public notebooks as they are, and say where each stops.

    scripts/real                          # fetch what is missing, run what has no result yet, print the table
    scripts/real --only 3 --program haversack
    scripts/real --only 8de47dd2dffc      # one notebook, by its key in --list
    scripts/real --kind kaggle            # the notebooks of Kaggle
    scripts/real --again ours             # once more those that stopped at us
    scripts/real --list | --table | --json
    scripts/real --draw CLONES            # draw real.tsv again, out of clones of the repositories

Everything lies in `.real/`, which git ignores: the notebooks, the programs' environments, the results and the tables.
`--clones FOLDER` takes the notebooks out of clones instead of GitHub, and lets the sorting know which files a
repository has. One notebook runs at a time; what was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from scripts.real_notebooks import drawing, files, inputs, programs, replacements, results, stops
from scripts.real_notebooks.drawing import Listed
from scripts.real_notebooks.results import Results

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "scripts" / "real.tsv"
REPLACEMENTS = ROOT / "scripts" / "real_replacements.tsv"
FOLDER = ROOT / ".real"


def main() -> int:
    given = _arguments()
    if given.draw:
        drawing.write(TABLE, drawing.draw(given.draw))
        return 0
    listed = drawing.read(TABLE)
    rows = _chosen(listed, given.only, given.kind)
    names = given.program or list(programs.PROGRAMS)
    if given.list:
        print("\n".join(f"{listed.index(row) + 1:2} {row.key} {row.kind:24} {row.place}" for row in rows))
        return 0
    kept = Results(FOLDER / "results")
    paths = _paths(listed, given.clones)
    if not (given.table or given.json):
        for said in files.fetch(rows, FOLDER / "files", given.clones):
            print(said, file=sys.stderr)
        if given.fetch:
            return 0
        _forget(kept, rows, names, paths, given.again)
        _run(kept, rows, names, rebuild=not given.no_build)
    found = kept.all(rows, names, paths)
    _write(found, names, len(listed))
    print(json.dumps(results.as_json(found, names)) if given.json else results.markdown(found, names, len(rows)))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/real", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="N", help="the first N notebooks, or one by its key")
    parser.add_argument("--kind", help="the notebooks of this kind, such as kaggle")
    parser.add_argument("--program", action="append", choices=list(programs.PROGRAMS))
    parser.add_argument("--again", metavar="SORT", choices=[*stops.SORTS, "all"], help="run these once more")
    parser.add_argument("--no-build", action="store_true", help="use the environments that are there")
    parser.add_argument("--clones", type=Path, metavar="FOLDER")
    parser.add_argument("--draw", type=Path, metavar="CLONES")
    parser.add_argument("--fetch", action="store_true", help="fetch the notebooks and end")
    parser.add_argument("--list", action="store_true", help="list the notebooks and end")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table")
    parser.add_argument("--json", action="store_true", help="run nothing, print the results as JSON")
    return parser.parse_args()


def _chosen(rows: list[Listed], only: str | None, kind: str | None) -> list[Listed]:
    if kind:
        rows = [row for row in rows if row.kind == kind] or sys.exit(f"There is no notebook of the kind {kind}.")
    if only is None:
        return rows
    if only.isdigit() and len(only) < 4:
        return rows[: int(only)]
    return [row for row in rows if row.key == only] or sys.exit(
        f"There is no notebook {only}. See scripts/real --list."
    )


def _paths(rows: list[Listed], clones: Path | None) -> dict[str, set[str]]:
    """The files of each repository, out of its clone; remembered for runs without clones."""
    kept = FOLDER / "paths.json"
    if clones:
        found = {row.repository: drawing.paths(drawing.clone(clones, row.repository), row.commit) for row in rows}
        FOLDER.mkdir(exist_ok=True)
        kept.write_text(json.dumps(found))
    return {name: set(each) for name, each in json.loads(kept.read_text()).items()} if kept.exists() else {}


def _forget(kept: Results, rows: list[Listed], names: list[str], paths: dict[str, set[str]], sort: str | None) -> None:
    """Forget the results that are to be made again."""
    for result in kept.all(rows, names, paths) if sort else []:
        for name, stop in result.stops.items():
            if sort in (stop.sort, "all"):
                kept.drop(name, result.row)


def _run(kept: Results, rows: list[Listed], names: list[str], rebuild: bool) -> None:
    table = replacements.read(REPLACEMENTS)
    there = [row for row in rows if files.path_of(row, FOLDER / "files").exists()]
    for name in names:
        missing = [row for row in there if kept.get(name, row) is None]
        program = programs.PROGRAMS[name]
        if missing and (rebuild or not (FOLDER / "environments" / name).exists()):
            program.prepare(FOLDER, programs.build_wheel(ROOT, FOLDER))
        for number, row in enumerate(missing, 1):
            print(f"{name} {number}/{len(missing)} {row.place}", file=sys.stderr, flush=True)
            source = files.path_of(row, FOLDER / "files")
            copied = FOLDER / "replaced" / f"{row.key}.ipynb"
            count = replacements.copy(source, copied, row.place, table)
            published = json.loads(source.read_bytes())
            outcome = program.run(copied, published, FOLDER, row.key, inputs.wanted(row.place))
            outcome.replaced = count
            kept.put(name, row, outcome)
            print(f"  {outcome.seconds:.0f} s: {stops.stop(outcome)}", file=sys.stderr, flush=True)


def _write(found: list[results.Result], names: list[str], listed: int) -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "table.md").write_text(results.markdown(found, names, listed) + "\n")
    (FOLDER / "table.tsv").write_text(results.tsv(found, names))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(map(str, error.cmd))} failed with status {error.returncode}.")
    except KeyboardInterrupt:
        sys.exit(130)
