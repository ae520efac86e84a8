"""Why a run stopped where it did, by rules that can be read; what no rule knows is ours.

| sort | meaning |
|---|---|
| done | every cell was executed |
| internet | it needs a host, or a sign-in to a service, that this machine does not have |
| GPU | it needs a GPU, and there is none |
| drift | a library has changed since the notebook was written; named |
| notebook | it stops everywhere: a blank for the reader to fill, or an error that it was published with |
| ours | everything else: of the program that ran it |

The rules are tried in the order in which they stand in `RULES`. Each looks at one part of an `Outcome` for a pattern;
the group `what` of the pattern is named beside the sort.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.real_notebooks.programs import Outcome

DONE, INTERNET, GPU, DRIFT, NOTEBOOK, OURS = "done", "internet", "GPU", "drift", "notebook", "ours"
SORTS = (DONE, INTERNET, GPU, DRIFT, NOTEBOOK, OURS)
# A host's name; a host on this machine is never "the internet".
_HOST = r"(?P<what>(?!localhost\b|127\.|0\.0\.0\.0)[\w-]+(?:\.[\w-]+)+)"
_MODULE = r"(?P<what>[A-Za-z_]\w*)"
# Modules that we provide: an error about them is no drift of a library.
_OURS = r"(?!google\b|haversack\b|kaggle_secrets\b)"


@dataclass(frozen=True)
class Stop:
    """Where a run stopped: one of `SORTS`, and the host, library or reason; "" if there is nothing to name."""

    sort: str
    what: str = ""

    def __str__(self) -> str:
        return f"{self.sort} ({self.what})" if self.what else self.sort


@dataclass(frozen=True)
class Rule:
    """One way to know a stop.

    Attributes:
        sort: what it is then.
        part: what is looked at: "error" (class and message), "text" (the traceback), "source" (the cell), "printed"
            (what cells printed and, where none raised, the program).
        pattern: what is looked for.
        what: named if the pattern has no group `what`.
        only: the rule is tried only for errors whose class matches; "" for all.
    """

    sort: str
    part: str
    pattern: str
    what: str = ""
    only: str = ""

    def stop(self, outcome: Outcome) -> Stop | None:
        if self.only and not re.fullmatch(self.only, outcome.error):
            return None
        found = re.search(self.pattern, part_of(outcome, self.part), re.MULTILINE)
        if not found:
            return None
        return Stop(self.sort, found.groupdict().get("what") or self.what)


# What is raised where an earlier command should have brought a file or a package; "" where no cell was executed.
MISSING = (
    "FileNotFoundError|NotADirectoryError|ModuleNotFoundError|ImportError|BadZipFile|NameError|CalledProcessError|"
)
# What a blank that nobody filled raises.
BLANK = "SyntaxError|IndentationError|NameError|TypeError|ValueError|AttributeError|FileNotFoundError"
NO_NETWORK = (
    rf"[Uu]nable to resolve host address [‘'\"]?{_HOST}",
    rf"Could not resolve host: {_HOST}",
    rf"Failed to resolve '{_HOST}'",
    rf"unable to access 'https?://{_HOST}",
    rf"host='{_HOST}', port=\d+\): Max retries exceeded",
    rf"(?:[Ff]ailed to|[Cc]ould not|[Cc]ouldn't|[Cc]annot|unable to) (?:connect|fetch|download)\D{{0,40}}?{_HOST}",
    rf"https?://{_HOST}\S*: (?:None -- )?\[Errno -?\d+\]",
    rf"<urlopen error \[Errno -?\d+\][^>]*>(?:[\s\S]*https?://{_HOST})?",
    r"Temporary failure in name resolution|Name or service not known|nodename nor servname",
)
# What a library says of something that it once had.
_REMOVED = re.compile(r"\b(?:been|was|were) removed|no longer (?:supported|available)")
RULES = (
    Rule(NOTEBOOK, "source", r"YOUR (?:CODE|VALUE|KEY)|TODO|# ?Your [Cc]ode", "a blank to fill", only=BLANK),
    Rule(NOTEBOOK, "printed", r"\[YOUR-KEY-HERE\]", "a blank to fill", only=MISSING),
    Rule(INTERNET, "error", r"[Aa][Pp][Ii][ _-][Kk][Ee][Yy]", "a sign-in"),
    Rule(INTERNET, "error", r"^SecretNotFoundError|^LocalTokenNotFoundError|^GatedRepoError", "a sign-in"),
    Rule(INTERNET, "error", r"\b(?:log in|login|sign in)\b", "a sign-in"),
    Rule(INTERNET, "error", r"couldn't connect to 'https?://(?P<what>[\w.-]+)'"),
    Rule(INTERNET, "error", r"on the Hub|Hugging Face Hub|HfHub|LocalEntryNotFound|OfflineMode", "huggingface.co"),
    *(Rule(INTERNET, "error", pattern) for pattern in NO_NETWORK),
    *(Rule(INTERNET, "text", pattern) for pattern in NO_NETWORK),
    *(Rule(INTERNET, "printed", pattern, only=MISSING) for pattern in NO_NETWORK),
    Rule(GPU, "error", r"Found no NVIDIA driver|not compiled with CUDA|No CUDA GPUs|CUDA (?:is not|isn't) available"),
    Rule(GPU, "error", r"(?:requires?|needs?|no) (?:a )?(?:CUDA|GPU)|libcuda|libcudart|libnvrtc|cuda runtime"),
    Rule(DRIFT, "error", rf"^AttributeError: module '{_OURS}{_MODULE}(?:\.[\w.]+)?' has no attribute"),
    Rule(DRIFT, "error", rf"^ImportError: cannot import name '\w+' from '{_OURS}{_MODULE}"),
    Rule(DRIFT, "error", rf"^ModuleNotFoundError: No module named '{_OURS}{_MODULE}\.[\w.]+'"),
    Rule(DRIFT, "error", r"is not a valid package style", "matplotlib"),
    Rule(DRIFT, "printed", r"No matching distribution found for (?P<what>[\w.-]+)", only=MISSING),
    Rule(DRIFT, "printed", r"there (?:is|are) no versions? of (?P<what>[\w.-]+)", only=MISSING),
    Rule(DRIFT, "printed", r"(?P<what>[\w.-]+)(?:==\S+)? has no wheels? with a matching", only=MISSING),
    Rule(DRIFT, "printed", r"Failed to build [`'\"]?(?P<what>[\w.-]+?)(?:==|[`'\"\s])", only=MISSING),
)


def part_of(outcome: Outcome, part: str) -> str:
    """The text that a rule looks at."""
    return f"{outcome.error}: {outcome.message}" if part == "error" else str(getattr(outcome, part))


def published_error(outcome: Outcome) -> Stop | None:
    """The notebook was published with the same error in the same cell."""
    return Stop(NOTEBOOK, "published with it") if outcome.error and outcome.published == outcome.error else None


def fetched(outcome: Outcome) -> Stop | None:
    """Something is missing that a line should have fetched from a host that this machine cannot resolve.

    The line is in the failing cell, or names what is missing. Commands such as `wget -q` fail without a word.
    """
    if not re.fullmatch(MISSING, outcome.error):
        return None
    missing = {Path(name).name for name in re.findall(r"'([^']+)'", outcome.message)}
    for host, line in outcome.fetches:
        if line in outcome.source or any(name in line for name in missing):
            return Stop(INTERNET, host)
    return None


def repositorys_file(outcome: Outcome, paths: set[str]) -> Stop | None:
    """A file or module is missing that lies in the notebook's repository, of which Colab opens the notebook alone."""
    if not outcome.error or not re.fullmatch(MISSING, outcome.error):
        return None
    named = [Path(name).name for name in re.findall(r"'([^']+)'", outcome.message)]
    wanted = {name for module in named for name in (module, f"{module.split('.')[0]}.py")}
    here = wanted & {Path(path).name for path in paths}
    return Stop(NOTEBOOK, f"a file of its repository: {min(here)}") if here else None


def removed(outcome: Outcome) -> Stop | None:
    """A library says that it no longer has something; the last one in the traceback is named."""
    if not _REMOVED.search(outcome.message):
        return None
    libraries = re.findall(r"(?:site|dist)-packages/(\w+)", outcome.text)
    return None if libraries and libraries[-1] == "haversack" else Stop(DRIFT, libraries[-1] if libraries else "")


def out_of_time(outcome: Outcome) -> Stop | None:
    """It asks Colab for a GPU and did not end in time without one."""
    return Stop(GPU, "out of time") if outcome.status == "time" and outcome.accelerator == "GPU" else None


def stop(outcome: Outcome, paths: set[str] | None = None) -> Stop:
    """Sort where a run stopped; `paths` are the files of the notebook's repository, if they are known."""
    if outcome.status == DONE:
        return Stop(DONE)
    checks: list[Callable[[], Stop | None]] = [
        lambda: published_error(outcome),
        *(lambda rule=rule: rule.stop(outcome) for rule in RULES),
        lambda: fetched(outcome),
        lambda: removed(outcome),
        lambda: repositorys_file(outcome, paths or set()),
        lambda: out_of_time(outcome),
    ]
    found = (check() for check in checks)
    return next((one for one in found if one), Stop(OURS, _unknown(outcome)))


def _unknown(outcome: Outcome) -> str:
    if outcome.status == "time":
        return "out of time"
    lines = part_of(outcome, "error" if outcome.error else "message").strip().splitlines() or ["no word"]
    return lines[0 if outcome.error else -1][:80]
