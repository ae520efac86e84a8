"""What a notebook's cells import, install and write.

Cells are transformed by IPython as its shell would (magics, `!`, `?`) and parsed with `ast`; nothing is executed. An
import is required if it runs whenever its cell runs: at the cell's top level, or in a `with`, a loop or an `if
__name__` block. Imports in a `try` that handles `ImportError`, in a function, under an `if` or in a magic are optional:
they are installed if the table knows them, and are never an error. `TYPE_CHECKING` blocks are skipped.

Not found here: modules that are imported by a name computed at run time, and those that only imported libraries need.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haversack.packages.declared import Declaration, declaration

# Part of the standard library of an older Python that notebooks were written for. `distutils` is not among them:
# setuptools still provides it.
_REMOVED = {
    "aifc", "asynchat", "asyncore", "audioop", "cgi", "cgitb", "chunk", "crypt", "imghdr", "imp", "lib2to3",
    "mailcap", "msilib", "nis", "nntplib", "ossaudiodev", "pipes", "smtpd", "sndhdr", "spwd", "sunau", "telnetlib",
    "uu", "xdrlib",
}  # fmt: skip
_STANDARD = (sys.stdlib_module_names | _REMOVED | {"__future__", "__main__"}) - {"distutils"}
# Packages that several projects share: what is imported from them is a module, and tells whose it is.
_SHARED = {"google", "google.ai", "google.cloud", "jaraco", "mpl_toolkits", "opentelemetry"}
# Cell magics whose body is Python.
_PYTHON_MAGICS = {"capture", "time", "timeit", "prun", "python", "python3", "pypy", "debug", "memit", "mprun", "lprun"}
_SHELL_MAGICS = {"bash", "sh", "shell", "system", "sx", "!"}
# Magics that need a package.
_MAGIC_MODULES = {"matplotlib": "matplotlib", "tensorboard": "tensorboard", "pylab": "matplotlib", "sql": "sql"}
# Extensions for %load_ext that are part of IPython.
_EXTENSIONS = {"autoreload", "storemagic"}
_IMPORT_ERRORS = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}
# Options of pip and uv whose value is the next word.
_WITH_VALUE = {
    "-i", "--index-url", "--extra-index-url", "-f", "--find-links", "-c", "--constraint", "--src", "--timeout",
    "--retries", "--proxy", "--trusted-host", "--cache-dir", "--progress-bar", "--platform", "--python-version",
    "--implementation", "--abi", "--only-binary", "--no-binary", "--upgrade-strategy", "--global-option",
    "--config-settings", "-C", "--log", "--cert", "--client-cert", "--python", "-p", "--torch-backend",
    "--exclude-newer", "--index", "--default-index",
}  # fmt: skip
# Those that install into a folder of their own, which the notebook may or may not put on its path.
_ELSEWHERE = {"-t", "--target", "--prefix", "--root"}
_FETCHES_CODE = re.compile(
    r"\b(git\s+clone|gdown|svn\s+(co|checkout)|conda\s+install|mamba\s+install)\b|\bunzip\b|\btar\b"
    r"|\b(wget|curl)\b.*\.(py|zip|tar|tgz|gz)\b"
)
_ADDS_CODE = re.compile(r"\bsys\.path\.(append|insert|extend)\b|\bos\.chdir\(|\bfiles\.upload\(|\bsys\.path\s*[+=]")


@dataclass(frozen=True)
class Import:
    """A module, dotted, as the code cell with this number imports it; cells count from 1. See the module's docstring
    for `required`."""

    module: str
    cell: int
    required: bool

    @property
    def top(self) -> str:
        """The module's first name."""
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class Installation:
    """What a pip cell installs, as written there.

    Attributes:
        requirement: a requirement, an address or a path; `-r FILE` for a file that the cells do not write.
        cell: the number of the code cell.
        certain: False if the command may not run or not install for this kernel: under an `if`, in a function, or into
            another folder (`--target`).
    """

    requirement: str
    cell: int
    certain: bool


@dataclass
class Needs:
    """What the cells of one notebook need.

    Attributes:
        imports: every import but those of the standard library, in the order of the cells.
        installations: what the notebook's own pip cells install, in order.
        local: names of modules that a cell writes (`%%writefile name.py`) or that lie beside the notebook.
        folders: names of folders beside the notebook that hold Python files but no `__init__.py`. Python imports them
            only if no installed package has the name.
        code_cells: the numbers of cells that may bring modules: they clone or download, change `sys.path` or the
            current folder, or receive uploads.
        source: the Python of all cells, transformed and without comments, with strings in single quotes, to be
            searched.
        environment: what its calls of `haversack.environment` describe.
        files: the modules, packages (folders), scripts and notebooks beside the notebook that its cells import or run,
            and those that these use, by their names there.
    """

    imports: list[Import] = field(default_factory=list)
    installations: list[Installation] = field(default_factory=list)
    local: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    code_cells: list[int] = field(default_factory=list)
    source: str = ""
    environment: Declaration = field(default_factory=Declaration)
    files: dict[str, Path] = field(default_factory=dict)


def needs(cells: Iterable[str], beside: Path | None = None, pages: Mapping[str, Path] | None = None) -> Needs:
    """Return what the code cells `cells` need.

    `beside` is the notebook's folder, whose modules are local; `pages` are notebooks elsewhere that the cells may run,
    by the names under which they do. What a cell imports or executes (`%run`) from there is read as a part of that
    cell. Raises `InputError` for a call of `haversack.environment` that cannot be read.
    """
    found = Needs()
    if beside is not None:
        packages = {path.parent.name for path in beside.glob("*/__init__.py")}
        found.local |= {path.stem for path in beside.glob("*.py")} | packages
        found.folders |= {path.parent.name for path in beside.glob("*/*.py")} - packages
    reading = _Reading(found, beside, pages or {})
    for number, source in enumerate(cells, 1):
        _Cell(number, reading).read(source, required=True)
    found.imports = [one for one in found.imports if one.top not in _STANDARD]
    found.code_cells = sorted(set(found.code_cells))
    return found


def code_cells(notebook: Any) -> list[str]:
    """Return the sources of the code cells of the parsed `notebook` that are not empty: the cells that a job counts."""
    sources = (cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    joined = (source if isinstance(source, str) else "".join(source) for source in sources)
    return [source for source in joined if source.strip()]


@dataclass
class _Reading:
    """What the cells read so far have in common.

    Attributes:
        found: what they need.
        beside: the notebook's folder, or None.
        pages: notebooks elsewhere, by the names under which the cells run them.
        written: the text files that they write, name → content.
        environment: the names under which `haversack.environment` can be called.
    """

    found: Needs
    beside: Path | None
    pages: Mapping[str, Path]
    written: dict[str, str] = field(default_factory=dict)
    environment: set[str] = field(default_factory=lambda: {"haversack.environment"})

    def file(self, *names: str) -> tuple[str, Path] | None:
        """Return the first of these names that is a file or folder beside the notebook or a page, and its path."""
        for name in names:
            path = self.pages.get(name) or (self.beside / name if self.beside else None)
            if name and path is not None and path.exists():
                return name, path
        return None


class _Cell:
    """Reads one cell; what it finds goes into `reading`."""

    def __init__(self, number: int, reading: _Reading) -> None:
        self._number = number
        self._reading = reading
        self._found = reading.found
        self._written = reading.written

    def read(self, source: str, required: bool) -> None:
        first, _, body = source.lstrip("\n").partition("\n")
        if not first.startswith("%%"):
            self._python(source, required)
            return
        magic, *arguments = first[2:].split() or [""]
        self._note(magic)
        if magic == "script" and arguments:
            # %%script python runs Python, and %%script false runs nothing.
            magic = Path(arguments[0]).name
        if magic in ("writefile", "file") and arguments:
            self._file(arguments[-1].strip("'\""), body)
        elif magic in _SHELL_MAGICS:
            for line in body.replace("\\\n", " ").splitlines():
                self.shell(line, required)
        elif magic in _PYTHON_MAGICS:
            self.read(body, required)

    def _file(self, name: str, body: str) -> None:
        self._written[name] = body
        if name.endswith(".py"):
            *folders, _ = Path(name).parts
            self._found.local |= {Path(name).stem, *(part for part in folders if part.isidentifier())}
            self._python(body, required=False)

    def _python(self, source: str, required: bool) -> None:
        tree, text = _parsed(source)
        self._found.source += text + "\n"
        if _ADDS_CODE.search(text):
            self.brings_code()
        if tree is not None:
            _Visitor(self, required).visit(tree)
            return
        for line in source.splitlines():
            self._line(line.strip())

    def _line(self, text: str) -> None:
        """Read a line of a cell that is not valid Python here, such as Python 2: the cell may fail by itself."""
        if text.startswith(("!", "%")):
            self.shell(text.lstrip("!%"), required=False)
        elif match := re.match(r"from\s+([A-Za-z_][\w.]*)\s+import\b", text):
            self.add(match[1], required=False)
        elif match := re.match(r"import\s+([\w.]+(\s+as\s+\w+)?(\s*,\s*[\w.]+(\s+as\s+\w+)?)*)", text):
            for name in match[1].split(","):
                self.add(name.split()[0], required=False)

    def add(self, module: str, required: bool) -> None:
        self._found.imports.append(Import(module, self._number, required))
        top = module.partition(".")[0]
        is_beside = top in self._found.local | self._found.folders
        found = self._reading.file(f"{top}.py", top) if is_beside else None
        if found is not None and found[0] not in self._found.files:
            self._read_beside(*found, required=False)

    def brings_code(self) -> None:
        self._found.code_cells.append(self._number)

    def magic(self, words: list[str], required: bool) -> None:
        magic, rest = words[0], words[1] if len(words) > 1 else ""
        if magic in ("load_ext", "reload_ext") and rest:
            for name in set(rest.split()) - _EXTENSIONS:
                self.add(name, required=False)
        elif magic in ("pip", "uv", "conda", "mamba"):
            self.shell(f"{magic} {rest}", required)
        elif magic in ("shell", "sx", "system"):
            self.shell(rest, required)
        elif magic in ("time", "timeit", "prun"):
            self._python(re.sub(r"^(-\w+(\s+\d+)?\s+)+", "", rest), required)
        elif magic == "cd":
            self.brings_code()
        elif magic == "run":
            self._run(rest, required)
        self._note(magic)

    def _run(self, arguments: str, required: bool) -> None:
        """Read the notebook or script that `%run` executes, once, if it lies beside the notebook or is a page."""
        words = [word for word in _words(arguments) if not word.startswith("-")]
        found = self._reading.file(words[0]) if words and words[0] not in self._written else None
        if found is not None and found[1].is_file() and found[0] not in self._found.files:
            self._read_beside(*found, required=required)

    def _read_beside(self, name: str, path: Path, required: bool) -> None:
        """Note the module, package, script or notebook at `path` as used, and read it as a part of this cell."""
        self._found.files[name] = path
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            try:
                text = file.read_text(encoding="utf-8")
                cells = code_cells(json.loads(text)) if file.suffix == ".ipynb" else [text]
            except (OSError, ValueError, KeyError, TypeError):
                continue  # Python will say what is wrong with the file
            for source in cells:
                self.read(source, required)

    def call(self, node: ast.Call) -> None:
        """Note a call of `haversack.environment`."""
        if ast.unparse(node.func) in self._reading.environment:
            self._found.environment += declaration(node, self._number)

    def name_environment(self, name: str) -> None:
        """Note a name under which later code can call `haversack.environment`."""
        self._reading.environment.add(name)

    def _note(self, magic: str) -> None:
        if magic in _MAGIC_MODULES:
            self.add(_MAGIC_MODULES[magic], required=False)

    def shell(self, line: str, required: bool) -> None:
        """Read a line of shell: note what brings code, and what a `pip install` in any of its spellings installs."""
        if _FETCHES_CODE.search(line):
            self.brings_code()
        command: list[str] = []
        for word in [*_words(line), ";"]:
            if set(word) <= set(";&|\n"):
                self.command(command, required)
                command = []
            else:
                command.append(word)

    def command(self, words: list[str], required: bool) -> None:
        while words and (re.match(r"\w+=", words[0]) or words[0] in ("sudo", "time", "yes", "env", "%pip")):
            words = words[1:]
        if words and re.fullmatch(r"(.*/)?(python[\d.]*|\{?sys\.executable\}?|\$?\{?PYTHON\}?)", words[0]):
            words = words[2:] if words[1:2] == ["-m"] else []
        if words[:1] == ["uv"]:
            words = words[1:]
        if len(words) > 2 and re.fullmatch(r"(.*/)?pip[\d.]*", words[0]) and words[1] == "install":
            self._pip(words[2:], required)

    def _pip(self, words: list[str], required: bool) -> None:
        certain = required and not any(word.partition("=")[0] in _ELSEWHERE for word in words)
        rest = iter(words)
        for word in rest:
            if word in ("-r", "--requirement"):
                self._requirement_file(next(rest, ""), certain)
            elif word.startswith(("-r", "--requirement=")):
                self._requirement_file(word.removeprefix("--requirement=").removeprefix("-r"), certain)
            elif word in ("-e", "--editable"):
                self._installs(next(rest, ""), certain)
            elif word in _WITH_VALUE | _ELSEWHERE:
                next(rest, "")
            elif re.fullmatch(r"\d?>{1,2}.*", word):
                if word.endswith(">"):
                    next(rest, "")
            elif not word.startswith("-"):
                self._installs(word, certain)

    def _requirement_file(self, name: str, certain: bool) -> None:
        if name not in self._written:
            self._installs(f"-r {name}", certain)
        for line in lines(self._written.get(name, "")):
            if not line.startswith("-"):
                self._installs(line, certain)

    def _installs(self, requirement: str, certain: bool) -> None:
        self._found.installations.append(Installation(requirement, self._number, certain))


def lines(text: str) -> list[str]:
    """Return the lines of a requirements file without comments, with continued lines joined."""
    joined = re.sub(r"[ \t]*\\\r?\n[ \t]*", " ", text)
    stripped = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in stripped if line]


def _words(line: str) -> list[str]:
    """The words of a line of shell, `;`, `&` and `|` among them."""
    try:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        return list(lexer)
    except ValueError:
        return line.split()


def _parsed(source: str) -> tuple[ast.Module | None, str]:
    with warnings.catch_warnings():
        # A cell's own "\d" is not ours to report.
        warnings.simplefilter("ignore")
        # IPython leaves what is Python as it is, and takes 0.1 s to import.
        for transform in (str, _transformed):
            try:
                tree = ast.parse(transform(source))
                return tree, ast.unparse(tree)
            except (SyntaxError, ValueError, RecursionError):
                continue
    return None, source


def _transformed(source: str) -> str:
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager().transform_cell(source)


class _Visitor(ast.NodeVisitor):
    """Finds imports in a cell, and the shell commands and magics that IPython's transformation turned into calls."""

    def __init__(self, cell: _Cell, required: bool) -> None:
        self._cell = cell
        self._required = required

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._cell.add(alias.name, self._required)
            if alias.name == "haversack" and alias.asname:
                self._cell.name_environment(f"{alias.asname}.environment")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level or not node.module:
            return
        for alias in node.names:
            if (node.module, alias.name) == ("haversack", "environment"):
                self._cell.name_environment(alias.asname or alias.name)
        if node.module in _SHARED:
            for alias in node.names:
                self._cell.add(f"{node.module}.{alias.name}", self._required)
        else:
            self._cell.add(node.module, self._required)

    def visit_Try(self, node: ast.Try) -> None:
        guarded = any(handles_import_error(handler) for handler in node.handlers)
        self._visit_all(node.body, self._required and not guarded)
        for handler in node.handlers:
            self._visit_all(handler.body, False)
        self._visit_all(node.orelse, self._required and not guarded)
        self._visit_all(node.finalbody, self._required)

    visit_TryStar = visit_Try  # type: ignore[assignment]  # noqa: N815

    def visit_With(self, node: ast.With) -> None:
        suppressed = any(re.search(r"suppress\(.*Error|suppress\(.*Exception", ast.unparse(one)) for one in node.items)
        for item in node.items:
            self.visit(item)
        self._visit_all(node.body, self._required and not suppressed)

    def visit_If(self, node: ast.If) -> None:
        condition = ast.unparse(node.test)
        self.visit(node.test)
        if "TYPE_CHECKING" not in condition:
            self._visit_all(node.body, self._required and "__name__" in condition)
        self._visit_all(node.orelse, False)

    def visit_Match(self, node: ast.Match) -> None:
        for case in node.cases:
            self._visit_all(case.body, False)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before, self._required = self._required, False
        self.generic_visit(node)
        self._required = before

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]  # noqa: N815

    def visit_Call(self, node: ast.Call) -> None:
        name, words = _call(node)
        if name == "shell":
            self._cell.shell(words[0], self._required)
        elif name == "command":
            self._cell.command(words, self._required)
        elif name == "line magic":
            self._cell.magic(words, self._required)
        elif name == "cell magic":
            self._cell.read("\n".join([f"%%{words[0]} {words[1]}", *words[2:]]), self._required)
        elif name == "import":
            self._cell.add(words[0], self._required)
        self._cell.call(node)
        self.generic_visit(node)

    def _visit_all(self, nodes: list[ast.stmt], required: bool) -> None:
        before, self._required = self._required, required
        for node in nodes:
            self.visit(node)
        self._required = before


def handles_import_error(handler: ast.ExceptHandler) -> bool:
    """Whether an `except` clause handles an ImportError."""
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(ast.unparse(kind).rpartition(".")[2] in _IMPORT_ERRORS for kind in kinds)


_CALLS = {
    "get_ipython().system": "shell",
    "get_ipython().getoutput": "shell",
    "get_ipython().run_line_magic": "line magic",
    "get_ipython().run_cell_magic": "cell magic",
    "os.system": "shell",
    "importlib.import_module": "import",
    "import_module": "import",
    "__import__": "import",
}


def _call(node: ast.Call) -> tuple[str, list[str]]:
    """Return what kind of call this is, and its literal arguments; "" for a call that says nothing here."""
    function = ast.unparse(node.func)
    words = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    if function.startswith("subprocess.") and node.args:
        first = node.args[0]
        if isinstance(first, ast.List | ast.Tuple):
            return "command", [_word(one) for one in first.elts]
        return ("shell", words[:1]) if words and isinstance(first, ast.Constant) else ("", [])
    kind = _CALLS.get(function, "")
    return (kind, words) if len(words) >= (2 if kind == "cell magic" else 1) else ("", [])


def _word(node: ast.expr) -> str:
    """A word of a command given as a list: its text, `python` for the interpreter, `?` if it is computed."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "python" if "executable" in ast.unparse(node) else "?"
