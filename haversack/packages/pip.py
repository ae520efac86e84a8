"""A call of pip as the call of `uv pip` that does the same, or the reason why it is left to pip.

    translated(["install", "-Uq", "pandas"])    # UvCall("install", ("--upgrade-package", "pandas", "pandas"), …)
    translated(["download", "pandas"])          # LeftToPip("uv has no `download`")

Translated are `install`, `uninstall`, `list` and `freeze` with the options in `pip_options`. Everything else is left
to pip, also `show` and `check`, whose text by uv has less in it. Nothing is guessed: an option that is in no table
leaves the whole call to pip, which then also says what is wrong with it.

pip's meaning is kept where the same word means something else to uv:

- `-U NAME` upgrades NAME, and its dependencies only if they have to be (`only-if-needed`); uv's `-U` upgrades all.
- Indexes are equal (`unsafe-best-match`): the best version of all wins, not that of the first index that has the name.
- Options add to pip's configuration or replace it as with pip: `-i` replaces, `--extra-index-url`, `-f`, `-c` and
  `--trusted-host` add.
- A package that is there and satisfies the requirement stays.

uv and not pip decides these: byte code is not compiled, `--user` is ignored (a job's environment is the user's), and
nobody is asked before an uninstallation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from haversack.packages.imports import lines
from haversack.packages.pip_options import COMMANDS, FILE_KEPT, FILE_TAKEN, FLAGS, OTHER_COMMANDS, SHORT, VALUES
from haversack.packages.table import project_of

# uv fetches from Git only, and installs no repository as editable.
_OTHER_REPOSITORY = re.compile(r"(^|@\s*)(hg|svn|bzr)\+")
_EDITABLE_REPOSITORY = re.compile(r"(-e|--editable)[ =]*\w+\+")


@dataclass(frozen=True)
class UvCall:
    """A call of `uv pip`.

    Attributes:
        command: "install", "uninstall", "list" or "freeze".
        arguments: what follows the command.
        replaced: environment variables for uv, instead of those of pip's configuration; they may hold secrets.
        added: environment variables for uv whose values, separated as uv wants it, go before the configured ones.
        requirements: what the command line itself names.
        quiet: how often `-q` was given.
        verbose: whether `-v` was given.
        elsewhere: whether it installs into a folder of its own and not into the environment.
    """

    command: str
    arguments: tuple[str, ...] = ()
    replaced: Mapping[str, str] = field(default_factory=dict)
    added: Mapping[str, str] = field(default_factory=dict)
    requirements: tuple[str, ...] = ()
    quiet: int = 0
    verbose: bool = False
    elsewhere: bool = False

    def variables(self, configured: Mapping[str, str]) -> dict[str, str]:
        """Return the environment variables for uv, given those of pip's configuration (`pip_settings.UvSettings`)."""
        values = {**configured, "UV_INDEX_STRATEGY": "unsafe-best-match", **self.replaced}
        for name, value in self.added.items():
            values[name] = _SEPARATORS[name].join(filter(None, [value, configured.get(name, "")]))
        return values


@dataclass(frozen=True)
class LeftToPip:
    """A call that pip itself has to do; `reason` is a clause without a full stop, `verbose` whether to print it."""

    reason: str
    verbose: bool = False


_SEPARATORS = {"UV_INDEX": " ", "UV_FIND_LINKS": ",", "UV_INSECURE_HOST": " "}


class _Left(Exception):
    """The call is left to pip, for the reason that is its only argument."""


def translated(arguments: Sequence[str]) -> UvCall | LeftToPip:
    """Translate the arguments of a call of pip, without `pip` itself. Requirements files that it names are read."""
    command, rest = _command(arguments)
    verbose = any(re.fullmatch(r"-\w*v\w*|--verbose", word) for word in arguments)
    if command not in COMMANDS:
        return LeftToPip(OTHER_COMMANDS.get(command, f"uv has no `{command}`" if command else "no command"), verbose)
    try:
        return _Translation(command).call(rest)
    except _Left as left:
        return LeftToPip(str(left), verbose)


def _command(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Return pip's command and the other arguments; the options of pip itself may stand before the command."""
    rest = list(arguments)
    with_value = {"--proxy", "--retries", "--timeout", "--trusted-host", "--cert", "--client-cert", *VALUES[""]}
    position = 0
    while position < len(rest) and rest[position].startswith("-"):
        position += 2 if rest[position] in with_value else 1
    return (rest.pop(position), rest) if position < len(rest) else ("", rest)


class _Translation:
    """The translation of one call, built option by option."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._flags = {**FLAGS[""], **FLAGS[command]}
        self._values = {**VALUES[""], **VALUES[command]}
        self._short = {**SHORT[""], **SHORT[command]}
        self._words: list[str] = []
        self._requirements: list[str] = []
        self._files: list[str] = []
        self._replaced: dict[str, str] = {}
        self._added: dict[str, list[str]] = {}
        self._quiet = 0
        self._verbose = False
        self._upgrade = False
        self._eager = False
        self._other: dict[str, Callable[[], None]] = {"--quiet": self._more_quiet, "--verbose": self._more_verbose}
        self._with_value: dict[str, Callable[[str], None]] = {
            "--timeout": self._timeout,
            "--default-timeout": self._timeout,
            "--retries": lambda value: self._replace("UV_HTTP_RETRIES", value),
            "--proxy": self._proxy,
            "--cert": lambda value: self._replace("SSL_CERT_FILE", value),
            "--client-cert": lambda value: self._replace("SSL_CLIENT_CERT", value),
            "--trusted-host": lambda value: self._add("UV_INSECURE_HOST", value),
            "--keyring-provider": self._keyring,
            "--use-feature": self._feature,
        }
        if command in ("install", "list"):
            self._with_value |= {
                "--index-url": lambda value: self._replace("UV_DEFAULT_INDEX", value),
                "--pypi-url": lambda value: self._replace("UV_DEFAULT_INDEX", value),
                "--extra-index-url": lambda value: self._add("UV_INDEX", value),
                "--find-links": self._links,
            }
        if command == "install":
            self._other["--upgrade"] = self._set_upgrade
            self._with_value |= {
                "--requirement": self._file,
                "--editable": self._editable,
                "--upgrade-strategy": self._strategy,
                "--only-binary": lambda value: self._formats("--only-binary", value),
                "--no-binary": lambda value: self._formats("--no-binary", value),
            }

    def call(self, arguments: Sequence[str]) -> UvCall:
        for option, value in self._options(iter(arguments)):
            if not option:
                self._requirement(value)
            elif option in self._other:
                self._other[option]()
            elif option in self._flags:
                self._words += self._flags[option]
            elif option in self._with_value:
                self._with_value[option](value)
            elif uv_option := self._values[option]:
                self._words += [uv_option, value]
        named = self._requirements or {"--requirements", "--editable", "--group"}.intersection(self._words)
        if self._command in ("install", "uninstall") and not named:
            raise _Left("it names nothing")
        return UvCall(
            self._command,
            (*self._words, *self._upgrades(), *self._requirements),
            self._replaced,
            {name: _SEPARATORS[name].join(values) for name, values in self._added.items()},
            tuple(self._requirements),
            self._quiet,
            self._verbose,
            any(word in ("--target", "--prefix") for word in self._words),
        )

    def _options(self, words: Iterator[str]) -> Iterator[tuple[str, str]]:
        """Each option by its long name, with its value or ""; each other word as the value of the option ""."""
        for word in words:
            if word == "--":
                yield from (("", rest) for rest in words)
            elif word.startswith("--"):
                option, equals, value = word.partition("=")
                yield option, self._value(option, value if equals else None, words)
            elif word.startswith("-") and word != "-":
                yield from self._short_options(word[1:], words)
            else:
                yield "", word

    def _short_options(self, letters: str, words: Iterator[str]) -> Iterator[tuple[str, str]]:
        """The options of one word, such as `-qU` or `-rFILE`."""
        while letters:
            letter, letters = letters[0], letters[1:]
            option = self._short.get(f"-{letter}", "")
            if not option:
                raise _Left(f"`-{letter}` is not translated")
            if option in self._with_value or option in self._values:
                yield option, self._value(option, letters or None, words)
                return
            yield option, ""

    def _value(self, option: str, given: str | None, words: Iterator[str]) -> str:
        """Return the value of `option`, `given` in the same word or the next one; "" for an option that has none."""
        takes = option in self._with_value or option in self._values
        if not takes and option not in self._flags and option not in self._other:
            raise _Left(f"`{option}` is not translated")
        if takes:
            value = given if given is not None else next(words, None)
            if value is None:
                raise _Left(f"`{option}` has no value")
            return value
        if given is not None:
            raise _Left(f"`{option}` takes no value")
        return ""

    def _requirement(self, text: str) -> None:
        if _OTHER_REPOSITORY.search(text):
            raise _Left(f"uv does not know the version control of {text}")
        self._requirements.append(text)

    def _editable(self, text: str) -> None:
        if "+" in text.partition("://")[0] and "://" in text:
            raise _Left("uv installs no repository as editable")
        self._words += ["--editable", text]

    def _file(self, name: str) -> None:
        for line in _file_lines(name):
            if not self._file_line(line):
                raise _Left(f"{name} has a line that uv refuses: {line}")
        self._files.append(name)
        self._words += ["--requirements", name]

    def _file_line(self, line: str) -> bool:
        """Take what uv would pass over in a line of a requirements file; return whether uv reads such a line."""
        if _EDITABLE_REPOSITORY.match(line) or _OTHER_REPOSITORY.search(line):
            return False
        if not line.startswith("-"):
            return not re.search(r"\s--(?!hash\b)", line)
        found = re.match(r"(--[a-z-]+|-[a-zA-Z])[ =]*(.*)", line)
        if found is not None and found[1] in FILE_TAKEN:
            self._file_option(found[1], found[2])
            return True
        return found is not None and found[1] in FILE_KEPT

    def _file_option(self, option: str, value: str) -> None:
        if option == "--pre":
            self._words += FLAGS["install"]["--pre"]
        elif option == "--trusted-host":
            self._add("UV_INSECURE_HOST", value)
        elif option in ("-i", "--index-url"):
            self._replace("UV_DEFAULT_INDEX", value)
        else:
            self._links_exist(value)

    def _links(self, value: str) -> None:
        self._links_exist(value)
        self._add("UV_FIND_LINKS", value)

    def _links_exist(self, value: str) -> None:
        """uv ends at a folder of links that does not exist; pip goes on without it."""
        if "://" not in value and not os.path.exists(value):
            raise _Left(f"there is no {value}")

    def _upgrades(self) -> list[str]:
        """uv's options for `-U`: each named package is upgraded, and no other unless the strategy is `eager`."""
        if not self._upgrade:
            return []
        if self._eager:
            return ["--upgrade"]
        texts = [*self._requirements, *(line for name in self._files for line in _file_lines(name))]
        projects = dict.fromkeys(project_of(text) for text in texts if not text.startswith("-"))
        return [word for project in projects if project for word in ("--upgrade-package", project)]

    def _strategy(self, value: str) -> None:
        if value not in ("only-if-needed", "eager"):
            raise _Left(f"`--upgrade-strategy {value}` is not translated")
        self._eager = value == "eager"

    def _formats(self, option: str, value: str) -> None:
        for name in value.split(","):
            self._words += [option, name]

    def _timeout(self, value: str) -> None:
        if not value.replace(".", "", 1).isdigit():
            raise _Left(f"`--timeout {value}` is not a number")
        self._replace("UV_HTTP_TIMEOUT", str(max(1, round(float(value)))))

    def _proxy(self, value: str) -> None:
        proxy = value if "://" in value else f"http://{value}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            self._replace(name, proxy)

    def _keyring(self, value: str) -> None:
        if value not in ("auto", "disabled", "subprocess"):
            raise _Left(f"`--keyring-provider {value}` is not translated")
        if value != "auto":
            self._words += ["--keyring-provider", value]

    def _feature(self, value: str) -> None:
        """Accept the features that are how uv works anyway."""
        if value not in ("2020-resolver", "fast-deps", "in-tree-build", "inprocess-build-deps", "truststore"):
            raise _Left(f"`--use-feature {value}` is not translated")

    def _set_upgrade(self) -> None:
        self._upgrade = True

    def _more_quiet(self) -> None:
        self._quiet += 1

    def _more_verbose(self) -> None:
        if self._command == "list":
            raise _Left("pip's `list -v` has more columns")
        self._verbose = True

    def _replace(self, name: str, value: str) -> None:
        self._replaced[name] = value

    def _add(self, name: str, value: str) -> None:
        if _SEPARATORS[name] in value:
            raise _Left(f"{value!r} has a character that separates values for uv")
        self._added.setdefault(name, []).append(value)


def _file_lines(name: str, seen: frozenset[str] = frozenset()) -> list[str]:
    """The lines of a requirements file and of those that it includes; none of a file that cannot be read here."""
    if name in seen or name == "-":
        return []
    try:
        with open(name, encoding="utf-8", errors="replace") as file:
            own = lines(file.read())
    except OSError:
        return []
    included = [match[1] for line in own if (match := re.match(r"(?:-r|--requirement)[ =]*(\S.*)", line))]
    others = (os.path.join(os.path.dirname(name), one) for one in included)
    return [*own, *(line for one in others for line in _file_lines(one, seen | {name}))]
