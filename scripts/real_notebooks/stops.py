"""Why a run stopped where it did, by rules that can be read; what no rule knows is ours.

| sort | meaning |
|---|---|
| done | every cell was executed |
| internet | it needs a host, or a sign-in to a service, that this machine does not have |
| GPU | it needs a GPU, and there is none |
| drift | a library has changed since the notebook was written; named |
| notebook | it stops everywhere: a blank for the reader to fill, or an error that it was published with |
| ours | everything else: of the program that ran it |

The checks of `stop` are tried in order. Most are `RULES`: each looks at one part of an `Outcome` for a pattern, and the
group `what` of the pattern is named beside the sort. A fault of ours must never get another sort, so the rules are
narrow: a traceback through haversack, a missing package that no failed command names, a missing file below Kaggle's
input folder, and a stop that another program does not have (`of_one_program`) stay ours. Where made data or a fault of
ours could raise the same error as a library that has changed, the rule also wants the published notebook to show that
the cell ran there (`Outcome.ran`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.real_notebooks import cells
from scripts.real_notebooks.programs import Outcome

DONE, INTERNET, GPU, DRIFT, NOTEBOOK, OURS = "done", "internet", "GPU", "drift", "notebook", "ours"
SORTS = (DONE, INTERNET, GPU, DRIFT, NOTEBOOK, OURS)
# A host's name; a host on this machine is never "the internet".
_HOST = r"(?P<what>(?!localhost\b|127\.|0\.0\.0\.0)[\w-]+(?:\.[\w-]+)+)"
_MODULE = r"(?P<what>[A-Za-z_]\w*)"
# An error about these is no drift of a library: we provide them, or several projects add to their modules.
_NOT_DRIFT = r"(?!google\b|haversack\b|kaggle_secrets\b|mpl_toolkits\b)"
# A file of haversack in a traceback. Folders of that name with an environment in them have a dot or hyphen below.
_OUR_FRAME = re.compile(r"/haversack/(?:\w+/)*\w+\.py\b")


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
        ran: whether the rule is tried only if the cell ran where the notebook was published.
    """

    sort: str
    part: str
    pattern: str
    what: str = ""
    only: str = ""
    ran: bool = False

    def stop(self, outcome: Outcome) -> Stop | None:
        if (self.only and not re.fullmatch(self.only, outcome.error)) or (self.ran and not outcome.ran):
            return None
        found = re.search(self.pattern, part_of(outcome, self.part), re.MULTILINE)
        if not found:
            return None
        return Stop(self.sort, found.groupdict().get("what") or self.what)


# What is raised where an earlier command should have brought a file.
NO_FILE = "FileNotFoundError|NotADirectoryError|BadZipFile|CalledProcessError"
# What is raised where a package is missing.
NO_MODULE = "ModuleNotFoundError|ImportError"
# What libraries raise on purpose: not what Python itself raises for a mistake in code.
ON_PURPOSE = r"(?!(?:Type|Attribute|Name|Import|ModuleNotFound|Syntax|Indentation|Key|Index)Error$)\w+"
# What google.colab raises for a sign-in that the user has to give.
SIGN_IN = "SecretNotFoundError|AuthorizationError"
BLANK = re.compile(r"YOUR (?:CODE|VALUE|KEY)|TODO|# ?Your [Cc]ode")
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
# What a call says of an argument that it does not have, and an object of an attribute.
_NO_ARGUMENT = re.compile(r"^(?:(\w+)(?:\.\w+)?\(\) )?got an unexpected keyword argument '\w+'")
_NO_ATTRIBUTE = re.compile(r"^'(\w+)' object has no attribute '\w+'")
# What a library says of an argument's value that it does not know.
_NO_VALUE = re.compile(r"^()\w+ must be one of\b")
# What haversack says before the first cell of imports that it has no package for, and each of these imports.
_REFUSED = re.compile(r"does not provide .*? of this notebook: (?P<imports>.*?\))\.")
_REFUSED_IMPORT = re.compile(r"(\w+)(?:\.[\w.]+)? \(cells? ")
# Files that Kaggle puts below a notebook's input folder.
_INPUT = re.compile(r"(?:/kaggle|\.\.)/input/")
# What a library says of something that it once had.
_REMOVED = re.compile(r"\b(?:been|was|were) removed|no longer (?:supported|available)")
RULES = (
    Rule(NOTEBOOK, "printed", r"\[YOUR-KEY-HERE\]", "a blank to fill", only=NO_FILE),
    Rule(INTERNET, "error", r"[Aa][Pp][Ii][ _-][Kk][Ee][Yy]", "a sign-in", only=ON_PURPOSE),
    Rule(INTERNET, "error", r"^LocalTokenNotFoundError|^GatedRepoError", "a sign-in"),
    Rule(INTERNET, "error", r"\b(?:log in|login|sign in)\b", "a sign-in", only=ON_PURPOSE),
    Rule(INTERNET, "error", r"couldn't connect to 'https?://(?P<what>[\w.-]+)'"),
    Rule(
        INTERNET,
        "error",
        r"on the Hub|Hugging Face Hub|HfHub|LocalEntryNotFound|OfflineMode",
        "huggingface.co",
        only=ON_PURPOSE,
    ),
    *(Rule(INTERNET, "error", pattern) for pattern in NO_NETWORK),
    *(Rule(INTERNET, "text", pattern) for pattern in NO_NETWORK),
    *(Rule(INTERNET, "printed", pattern, only=NO_FILE) for pattern in NO_NETWORK),
    Rule(GPU, "error", r"Found no NVIDIA driver|not compiled with CUDA|No CUDA GPUs|CUDA (?:is not|isn't) available"),
    Rule(GPU, "error", r"(?:requires?|needs?|no) (?:a )?(?:CUDA|GPU)|libcuda|libcudart|libnvrtc|cuda runtime"),
    Rule(DRIFT, "error", rf"^AttributeError: module '{_NOT_DRIFT}{_MODULE}(?:\.[\w.]+)?' has no attribute"),
    Rule(DRIFT, "error", rf"^ImportError: cannot import name '\w+' from '{_NOT_DRIFT}{_MODULE}"),
    Rule(DRIFT, "error", rf"^ModuleNotFoundError: No module named '{_NOT_DRIFT}{_MODULE}\.[\w.]+'"),
    Rule(DRIFT, "error", r"is not a valid package style", "matplotlib"),
    Rule(DRIFT, "error", r"^ValueError: Argument\(s\) not recognized", "keras", ran=True),
    Rule(DRIFT, "error", r"^ValueError: Invalid filepath extension for saving", "keras", ran=True),
    Rule(DRIFT, "error", r"^TypeError: Invalid value '.*' for dtype 'str'", "pandas", ran=True),
    # Until pandas 2, statistics of a table left out its columns of text.
    Rule(DRIFT, "text", r"\.(?:corr|mean|std|median)\([\s\S]*could not convert string to float", "pandas", ran=True),
    # Kaggle's competitions bring it among their data.
    Rule(INTERNET, "error", r"^ModuleNotFoundError: No module named 'kaggle_evaluation'", "kaggle.com"),
)
# What pip and uv print of a package that has no version, or none that can be installed.
_NO_VERSION = re.compile(
    r"No matching distribution found for (?P<pip>[\w.-]+)|there (?:is|are) no versions? of (?P<none>[\w.-]+)"
    r"|(?P<wheel>[\w.-]+)(?:==\S+)? has no wheels? with a matching"
    r"|Failed to build [`'\"]?(?P<build>[\w.-]+?)(?:==|[`'\"\s])"
)


def part_of(outcome: Outcome, part: str) -> str:
    """The text that a rule looks at."""
    return f"{outcome.error}: {outcome.message}" if part == "error" else str(getattr(outcome, part))


def published_error(outcome: Outcome) -> Stop | None:
    """The notebook was published with the same error in the same cell."""
    same = outcome.published == part_of(outcome, "error")
    return Stop(NOTEBOOK, "published with it") if outcome.error and same else None


def blank(outcome: Outcome) -> Stop | None:
    """A cell that is not Python as it stands, with a blank for the reader to fill.

    A blank in a comment alone proves nothing: solutions keep the comments of their exercises.
    """
    if outcome.error not in ("SyntaxError", "IndentationError") or not BLANK.search(outcome.source):
        return None
    try:
        ast.parse(cells.as_python(outcome.source))
    except SyntaxError:
        return Stop(NOTEBOOK, "a blank to fill")
    return None


def sign_in(outcome: Outcome) -> Stop | None:
    """google.colab asks for a sign-in or a secret that only the user has."""
    return Stop(INTERNET, "a sign-in") if re.fullmatch(SIGN_IN, outcome.error) else None


def fetched(outcome: Outcome) -> Stop | None:
    """Something is missing that a line should have fetched from a host that this machine cannot resolve.

    The line names what is missing or, for a file, is in the failing cell. Commands such as `wget -q` fail without a
    message.
    """
    missing = missing_modules(outcome) | missing_files(outcome)
    is_file = re.fullmatch(NO_FILE, outcome.error)
    for host, line in outcome.fetches:
        if (is_file and line in outcome.source) or any(_names(line, name) for name in missing):
            return Stop(INTERNET, host)
    return None


def no_version(outcome: Outcome) -> Stop | None:
    """A module is missing whose package, as its name begins, pip or uv could not install for a cell."""
    modules = tuple(name.replace("_", "-").lower() for name in missing_modules(outcome))
    projects = (next(name for name in found.groups() if name) for found in _NO_VERSION.finditer(outcome.printed))
    named = (Stop(DRIFT, name) for name in projects if name.replace("_", "-").lower().startswith(modules))
    return next(named, None)


def repositorys_file(outcome: Outcome, paths: set[str]) -> Stop | None:
    """A file or module is missing that lies in the notebook's repository, of which Colab opens the notebook alone.

    If haversack refuses imports before the first cell, all of them must be there.
    """
    python = [Path(path) for path in paths if path.endswith(".py")]
    modules = {path.stem for path in python} | {part for path in python for part in path.parts[:-1]}
    refused = refused_imports(outcome)
    here = missing_files(outcome) & {Path(path).name for path in paths}
    here |= missing_modules(outcome) & modules
    here |= refused if refused <= modules else set()
    return Stop(NOTEBOOK, f"a file of its repository: {min(here)}") if here else None


def refused_imports(outcome: Outcome) -> set[str]:
    """The first names of the modules for which haversack, before the first cell, said that it has no package."""
    refused = _REFUSED.search(outcome.message) if not outcome.error else None
    return set(_REFUSED_IMPORT.findall(refused["imports"])) if refused else set()


def missing_modules(outcome: Outcome) -> set[str]:
    """The first names of the modules that an import error names, but not of those that we provide."""
    if not re.fullmatch(NO_MODULE, outcome.error):
        return set()
    return set(re.findall(rf"(?:No module named|cannot import name '\w+' from) '{_NOT_DRIFT}(\w+)", outcome.message))


def missing_files(outcome: Outcome) -> set[str]:
    """The names of the files that the error of a missing file names, without their folders.

    What should be below Kaggle's input folder comes from nowhere else: it is not among them.
    """
    if not re.fullmatch(NO_FILE, outcome.error):
        return set()
    return {Path(name).name for name in re.findall(r"'([^']+)'", outcome.message) if not _INPUT.search(name)}


def _names(line: str, name: str) -> bool:
    """Whether a line has `name` as a word, with hyphens and underscores alike."""
    word = re.escape(name.replace("-", "_"))
    return re.search(rf"(?<!\w){word}(?!\w)", line.replace("-", "_")) is not None


def removed(outcome: Outcome) -> Stop | None:
    """A library says that it no longer has something; the last one in the traceback is named."""
    if not _REMOVED.search(outcome.message):
        return None
    library = _last_library(outcome)
    return Stop(DRIFT, library) if library else None


def changed_interface(outcome: Outcome) -> Stop | None:
    """A library no longer has an argument, a value of one, or an attribute that it had for the published notebook.

    The library is the one that the named class or function is imported from, else the last in the traceback.
    """
    patterns = {"TypeError": _NO_ARGUMENT, "AttributeError": _NO_ATTRIBUTE, "ValueError": _NO_VALUE}
    found = patterns[outcome.error].match(outcome.message) if outcome.error in patterns and outcome.ran else None
    if not found:
        return None
    library = outcome.imported.get(found[1] or "") or _last_library(outcome)
    return Stop(DRIFT, library) if library and re.match(_NOT_DRIFT, library) else None


def text_columns(outcome: Outcome) -> Stop | None:
    """A cell took columns of text for numbers, because it looked for the type "object": pandas 3 has one for text."""
    taken = outcome.error == "ValueError" and outcome.message.startswith("could not convert string to float")
    return Stop(DRIFT, "pandas") if taken and outcome.ran and outcome.asks_for_object else None


def _last_library(outcome: Outcome) -> str:
    libraries = re.findall(r"(?:site|dist)-packages/(\w+)", outcome.text)
    return libraries[-1] if libraries else ""


def out_of_time(outcome: Outcome) -> Stop | None:
    """It asks Colab for a GPU and did not end in time without one."""
    return Stop(GPU, "out of time") if outcome.status == "time" and outcome.accelerator == "GPU" else None


def stop(outcome: Outcome, paths: set[str] | None = None) -> Stop:
    """Sort where a run stopped; `paths` are the files of the notebook's repository, if they are known."""
    if outcome.status == DONE:
        return Stop(DONE)
    checks: list[Callable[[], Stop | None]] = [lambda: sign_in(outcome)]
    if not _OUR_FRAME.search(outcome.text):
        checks += [
            lambda: published_error(outcome),
            lambda: blank(outcome),
            *(lambda rule=rule: rule.stop(outcome) for rule in RULES),
            lambda: fetched(outcome),
            lambda: no_version(outcome),
            lambda: removed(outcome),
            lambda: changed_interface(outcome),
            lambda: text_columns(outcome),
            lambda: repositorys_file(outcome, paths or set()),
        ]
    checks.append(lambda: out_of_time(outcome))
    found = (check() for check in checks)
    return next((one for one in found if one), Stop(OURS, _unknown(outcome)))


def of_one_program(name: str, outcomes: Mapping[str, Outcome]) -> str:
    """The program that executed the cell at which the program `name` stopped; "" if there is none.

    A stop that another program does not have on the same machine is the fault of neither notebook, library nor network.
    """
    cell = outcomes[name].cell
    for other, outcome in outcomes.items():
        further = cell is not None and outcome.cell is not None and outcome.cell > cell
        if other != name and (outcome.status == DONE or further):
            return other
    return ""


def _unknown(outcome: Outcome) -> str:
    if outcome.status == "time":
        return "out of time"
    lines = part_of(outcome, "error" if outcome.error else "message").strip().splitlines() or ["no word"]
    return lines[0 if outcome.error else -1][:80]
