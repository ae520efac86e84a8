"""Run uv (https://docs.astral.sh/uv/) to lock and to make environments: its program, cache, configuration and errors.

uv resolves and installs. What it writes while it works is shown as a line of progress, and what it writes when it fails
becomes one `HaversackError`. If an index cannot be reached, the same command is run again with what is cached.

In a running job, for its cells, `uv_pip` runs it.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from haversack.errors import (
    ConnectionFailed,
    DiskFull,
    HaversackError,
    InputError,
    InstallFailed,
    IntegrityError,
)
from haversack.packages.pip_settings import UvSettings, uv_settings
from haversack.packages.uv_pip import UNREACHABLE

Show = Callable[[str], None]
"""Shows a line of progress, which the next one replaces."""

# Variables of a shell that mean another environment than the one that is made here.
_FOREIGN = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "UV_PROJECT", "UV_WORKING_DIR", "UV_PYTHON")
_POLL = 0.3  # seconds between two looks at how far an installation is
_END_TIMEOUT = 10  # seconds that an interrupted uv has to end
_PROGRESS = re.compile(r"^\s*(Downloading|Downloaded|Building|Built|Updating|Updated|Resolved|Prepared)\b.*")


def program() -> str:
    """Return the path of uv: that in `HAVERSACK_UV`, else the one that is installed with haversack.

    Raises `InstallFailed` if there is none.
    """
    if given := os.environ.get("HAVERSACK_UV"):
        return given
    try:
        import uv

        return os.fsdecode(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        raise InstallFailed("uv, which installs packages, is missing.", "Install it: pip install uv") from None


@dataclass(frozen=True)
class Uv:
    """uv as haversack runs it.

    Attributes:
        cache: uv's cache of downloads, unless the user names one with `UV_CACHE_DIR`.
        show: shows a line of progress.
        notify: prints a sentence that stays.
        settings: pip's configuration.
    """

    cache: Path
    show: Show
    notify: Show
    settings: UvSettings

    @classmethod
    def make(
        cls, cache: Path, show: Show = lambda line: None, notify: Show = lambda line: None, *, builds: bool = True
    ) -> Uv:
        """Return uv with pip's configuration of this process. `cache` is haversack's cache folder.

        Without `builds` only wheels are installed, because building a package runs its code.
        """
        settings = uv_settings()
        if not builds:
            settings = replace(settings, arguments=(*settings.arguments, "--no-build"))
        return cls(cache / "uv", show, notify, settings)

    def run(
        self,
        *arguments: str,
        cwd: Path,
        watch: Callable[[], str] = lambda: "",
        keep: Sequence[int] = (),
        offline_first: bool = False,
    ) -> str:
        """Run `uv ARGUMENTS` and return its standard output.

        Args:
            arguments: the command and its options, as uv takes them.
            cwd: the existing folder to run in.
            watch: called every 0.3 s; what it returns is shown as progress, unless it is "".
            keep: file descriptors that uv's process inherits, such as that of a lock that must outlive this process.
            offline_first: try with what is cached before any index is asked.

        Raises what `error_of` returns, `ConnectionFailed` if an index cannot be reached and the cache does not suffice,
        and `OSError` if uv cannot be started. If it is interrupted, uv has ended before `KeyboardInterrupt` is raised.
        """
        done = _Run(1, "", "")
        if offline_first:
            done = self._run(["--offline", *arguments], cwd, watch, keep)
        if done.status:
            done = self._run([*arguments], cwd, watch, keep)
        if done.status and UNREACHABLE.search(done.errors):
            index = _address(done.errors)
            self.show(f"{index} cannot be reached; using what is cached")
            cached = self._run(["--offline", *arguments], cwd, watch, keep)
            if cached.status:
                raise _unreachable(index, cached.errors)
            self.notify(f"{index} cannot be reached, so packages come from the cache.")
            return cached.output
        if done.status:
            raise self._error(done.errors)
        return done.output

    def variables(self) -> dict[str, str]:
        """Return the environment of uv's process."""
        inherited = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        inherited |= self.settings.variables
        inherited.setdefault("UV_CACHE_DIR", str(self.cache))
        inherited["PATH"] = _without_shims(inherited.get("PATH") or os.defpath)
        return inherited | {"NO_COLOR": "1", "UV_NO_PROGRESS": "1", "UV_PYTHON_INSTALL_BIN": "0"}

    def _error(self, errors: str) -> HaversackError:
        """Return `error_of` what uv wrote; without builds, with their absence as the reason where it is one."""
        error = error_of(errors)
        package, has_none, _ = error.what.partition(" has no wheel")
        if not has_none or "--no-build" not in self.settings.arguments:
            return error
        return InstallFailed(
            f"{package} has no wheel for this Python and machine, and of somebody else's notebook nothing is built.",
            "Read the notebook, and if you trust it, run it with --trust.",
        )

    def _run(self, arguments: Sequence[str], cwd: Path, watch: Callable[[], str], keep: Sequence[int]) -> _Run:
        process = subprocess.Popen(
            [program(), *arguments],
            cwd=cwd,
            env=self.variables(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            pass_fds=tuple(keep),
        )
        lines: list[str] = []
        output: list[str] = []
        readers = [
            threading.Thread(target=self._follow, args=(process.stderr, lines), daemon=True),
            threading.Thread(target=_read, args=(process.stdout, output), daemon=True),
        ]
        for reader in readers:
            reader.start()
        try:
            while True:
                try:
                    process.wait(_POLL)
                    break
                except subprocess.TimeoutExpired:
                    if line := watch():
                        self.show(line)
        finally:
            _end(process)
        # Not after an interrupt: a build's own process can outlive uv, and it holds the pipes open.
        for reader in readers:
            reader.join(_END_TIMEOUT)
        return _Run(process.returncode, "".join(output), "".join(lines))

    def _follow(self, stream: IO[str], lines: list[str]) -> None:
        """Run in a thread: collect the lines of `stream`, and show those that report progress."""
        for line in stream:
            lines.append(line)
            if _PROGRESS.match(line):
                self.show(line.strip())


def _read(stream: IO[str], output: list[str]) -> None:
    output.append(stream.read())


@dataclass(frozen=True)
class _Run:
    """How one run of uv ended: its exit status, standard output and standard error."""

    status: int
    output: str
    errors: str


def _without_shims(path: str) -> str:
    """`path`, a PATH, with pyenv's folder of shims replaced by those of its Pythons, newest first.

    A shim fails for a version that is not chosen in this folder, and uv stops looking at the first that fails.
    """
    folders: list[str] = []
    for folder in path.split(os.pathsep):
        versions = Path(folder).with_name("versions")
        if Path(folder).name != "shims" or not versions.is_dir():
            folders.append(folder)
            continue
        folders += [str(one) for one in sorted(versions.glob("3.*/bin"), reverse=True)]
    return os.pathsep.join(dict.fromkeys(folders))


def _end(process: subprocess.Popen[str]) -> None:
    """End the process if it still runs: on an interrupt it must not go on writing."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def error_of(errors: str) -> HaversackError:
    """Return the error for what uv wrote to its standard error before it failed: one sentence, and the next step.

    It is `DiskFull`, `InputError` for a requirement that cannot be read, `IntegrityError` for a file with another hash
    than locked, or `InstallFailed`.
    """
    text = " ".join(errors.split())
    for pattern, kind, what, next_step in _CAUSES:
        if found := re.search(pattern, text):
            named = next((group.rstrip(". ^") for group in found.groups() if group), "")
            return kind(what.format(named), next_step)
    if "No solution found" in text:
        return InstallFailed(f"The packages contradict each other: {_reasons(text)}.", _LOOSEN)
    told = [line.partition(":")[2].strip() for line in errors.splitlines() if re.match(r"error:|  cause:", line)]
    what = ": ".join(told[:2]).rstrip(".") or "it was killed"
    return InstallFailed(f"uv failed: {what}.", "Run the same with --no-install to use what is installed.")


_LOOSEN = "Change one of these requirements; `haversack env show NB.ipynb` says where each comes from."
DISK_FULL = ("The disk is full, so the packages were not installed.", "Free space: haversack env rm --all")
"""The sentence and the next step of a `DiskFull` while packages are installed."""
_OTHER_VERSION = "Ask for another version of it, or for another Python with --python VERSION."

# What uv writes, with its white space made single → the error, its sentence and next step; {} stands for the group of
# the pattern. The first that matches counts.
_CAUSES: tuple[tuple[str, type[HaversackError], str, str], ...] = (
    (r"No space left on device|os error 28\b|Disk quota exceeded", DiskFull, *DISK_FULL),
    (
        r"Couldn't parse requirement in .*? cause: (.*)",
        InputError,
        "A requirement cannot be read: {}.",
        "Correct it, for example: pandas<3",
    ),
    (
        r"Hash mismatch for `([^`]+)`",
        IntegrityError,
        "The file of {} is not the one that was locked.",
        "Lock again: haversack env lock",
    ),
    (
        r"401 Unauthorized|403 Forbidden|authentication",
        InstallFailed,
        "The package index refuses the sign-in.",
        "Put it into pip's configuration: pip config set global.index-url URL",
    ),
    (
        r"(?:hint: )?`?([\w.-]+)`? .{0,80}(?:missing an upload date|upload time|upload date)",
        InstallFailed,
        "The index does not tell when {} was uploaded, so --as-of cannot be kept.",
        "Leave out --as-of, or use an index with upload times, such as PyPI.",
    ),
    (
        r"Because (?:there are no versions of )?([\w.-]+) .{0,120}exclude-newer",
        InstallFailed,
        "{} had no release by that date.",
        "Give a later date with --as-of.",
    ),
    (
        r"Because ([\w.-]+) was not found in the (?:package registry|provided package locations)",
        InstallFailed,
        "There is no package {} in the index.",
        "Correct its name; `haversack env show NB.ipynb` says where it comes from.",
    ),
    (
        r"Because (?:all versions of )?([\w.=-]+) (?:has|have) no (?:wheels?|usable wheels|source)"
        r"|no wheels? .{0,60}and no source distribution .*?`?([\w.-]+)`?",
        InstallFailed,
        "{} has no wheel for this Python and machine, and no source to build it from.",
        _OTHER_VERSION,
    ),
    (
        r"Failed to download and build `([^`]+)` cause: Git operation failed",
        InstallFailed,
        "The repository of {} cannot be fetched.",
        "Correct its address, or sign in to it.",
    ),
    (
        r"Failed to (?:download and )?build `([^`]+)`",
        InstallFailed,
        "{} has no wheel for this Python and machine, and building it from its source failed.",
        _OTHER_VERSION,
    ),
    (
        r"Distribution not found at: (\S+)",
        InstallFailed,
        "There is nothing to install at {}.",
        "Correct the path or address.",
    ),
)


def _reasons(text: str) -> str:
    """Two facts in uv's explanation of a contradiction, without its conclusions: what depends on what comes first."""
    explanation = text.partition("cause: ")[2].partition(" hint:")[0]
    facts: list[str] = []
    for sentence in re.split(r"(?<=\.) (?=And|Because)", explanation):
        premise = re.sub(r"^(And because|Because) ", "", sentence).partition(", we can conclude")[0]
        facts += [fact for fact in premise.split(" and ") if "your requirements are unsatisfiable" not in fact]
    stated = [fact.strip(" .") for fact in facts]
    depends = [fact for fact in stated if re.search(r"\bdepends? on\b", fact)]
    # uv states what the user requires where it is used, so the last one is the one that does not fit.
    others = [fact for fact in reversed(stated) if fact not in depends]
    return " and ".join(dict.fromkeys([*depends, *others][:2])) or explanation


def _address(errors: str) -> str:
    """The server in the address that uv could not fetch, without a sign-in; "The package index" if none is named."""
    found = re.search(r"https?://(?:[^/@\s]*@)?([^/\s`)]+)", errors)
    return found[1] if found else "The package index"


def _unreachable(index: str, errors: str) -> HaversackError:
    missing = re.search(r"Because (\S+) was not found in the cache", " ".join(errors.split()))
    name = f", and {missing[1]} is not in the cache" if missing else ""
    return ConnectionFailed(
        f"{index} cannot be reached{name}.",
        "Check the connection and pip's configuration, or run with --no-install to use what is installed.",
    )
