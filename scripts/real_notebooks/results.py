"""What came of the runs: one JSON file each, so that a run that was interrupted goes on, and one table of all."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.real_notebooks import stops
from scripts.real_notebooks.drawing import Listed
from scripts.real_notebooks.programs import Outcome
from scripts.real_notebooks.stops import Stop


@dataclass(frozen=True)
class Result:
    """A row of the table: a notebook, and where each program stopped."""

    row: Listed
    outcomes: dict[str, Outcome]
    stops: dict[str, Stop]


class Results:
    """The outcomes below a folder, `<program>/<key>.json`, and what they are sorted into."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, program: str, row: Listed) -> Outcome | None:
        path = self._path(program, row)
        return Outcome(**json.loads(path.read_text())) if path.exists() else None

    def put(self, program: str, row: Listed, outcome: Outcome) -> None:
        path = self._path(program, row)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(dataclasses.asdict(outcome), ensure_ascii=False, indent=1))
        part.rename(path)

    def drop(self, program: str, row: Listed) -> None:
        self._path(program, row).unlink(missing_ok=True)

    def all(self, rows: list[Listed], programs: list[str], paths: dict[str, set[str]]) -> list[Result]:
        """The results that are there; `paths` has the files of each repository that is known."""
        found = []
        for row in rows:
            outcomes = {name: outcome for name in programs if (outcome := self.get(name, row))}
            if outcomes:
                found.append(Result(row, outcomes, sort(outcomes, paths.get(row.repository))))
        return found

    def _path(self, program: str, row: Listed) -> Path:
        return self._folder / program / f"{row.key}.json"


def sort(outcomes: dict[str, Outcome], paths: set[str] | None) -> dict[str, Stop]:
    """Where each program stopped, those that got further taken into account."""
    found = {name: stops.stop(outcome, paths) for name, outcome in outcomes.items()}
    for name, stop in found.items():
        if stop.sort not in (stops.DONE, stops.OURS) and (other := stops.of_one_program(name, outcomes)):
            found[name] = Stop(stops.OURS, f"{other} gets further: {stop}")
    return found


def counts(results: list[Result], program: str) -> Counter[str]:
    """How many notebooks each sort of stop has."""
    return Counter(result.stops[program].sort for result in results if program in result.stops)


def markdown(results: list[Result], programs: list[str], listed: int) -> str:
    """The table, and below it the counts of each program."""
    heads = ["kind", "notebook", "replaced", *(f"{name} | s" for name in programs)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * (3 + 2 * len(programs))]
    lines += [f"| {' | '.join(_cells(result, programs))} |" for result in results]
    for name in programs:
        found = counts(results, name)
        total = sum(found.values())
        each = ", ".join(f"{sort} {found[sort]}" for sort in stops.SORTS)
        lines.append(f"\n{name}: {total} of {listed} notebooks; {each}.")
    return "\n".join(lines)


def _cells(result: Result, programs: list[str]) -> list[str]:
    replaced = max(outcome.replaced for outcome in result.outcomes.values())
    cells = [result.row.kind, result.row.place, str(replaced)]
    for name in programs:
        outcome = result.outcomes.get(name)
        cells += [f"{result.stops[name]}", f"{outcome.seconds:.0f}"] if outcome else ["", ""]
    return [cell.replace("|", "\\|") for cell in cells]


def tsv(results: list[Result], programs: list[str]) -> str:
    lines = ["\t".join(["key", "kind", "notebook", "program", "sort", "what", "seconds", "replaced", "error"])]
    for result in results:
        for name in programs:
            if name in result.stops:
                lines.append("\t".join(_fields(result, name).values()))
    return "\n".join(lines) + "\n"


def as_json(results: list[Result], programs: list[str]) -> list[dict[str, Any]]:
    return [_fields(result, name) for result in results for name in programs if name in result.stops]


def _fields(result: Result, name: str) -> dict[str, str]:
    row, outcome, stop = result.row, result.outcomes[name], result.stops[name]
    error = f"{outcome.error}: {outcome.message}" if outcome.error else outcome.message
    last = (error.strip().splitlines() or [""])[0 if outcome.error else -1]
    return {
        "key": row.key,
        "kind": row.kind,
        "notebook": row.place,
        "program": name,
        "sort": stop.sort,
        "what": stop.what,
        "seconds": str(outcome.seconds),
        "replaced": str(outcome.replaced),
        "error": "" if stop.sort == stops.DONE else last.replace("\t", " ")[:300],
    }
