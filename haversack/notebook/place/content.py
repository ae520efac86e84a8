"""The job's `/content`: the folder that Colab notebooks work in, private to one job.

The first way that this machine allows is taken, without changing the machine:

    namespace    root: a mount namespace of the job's own, in which the job's folder is bound onto /content
    bubblewrap   everyone: a new root with every folder of the real one, and /content (`bwrap`, user namespaces);
                 FUSE works inside
    folder       root in a container that forbids namespaces: /content is a link to the job's folder, one job at a time
    literals     otherwise: `/content` in strings and shell lines of the cells is replaced by the job's folder as they
                 are executed, with a notice; the saved notebook keeps its own text

`HAVERSACK_CONTENT` may name one of them. Colab's HOME is `/root`: in bubblewrap an ordinary user's job has its own
there, otherwise hidden folders such as `/root/.kaggle` in the cells become those of the job's HOME in the same way.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import shutil
import subprocess
import tokenize
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from haversack.errors import InputError, JobError

CONTENT = Path("/content")
_LOCK = Path("/run/haversack-content.lock")

_CONTENT = re.compile(r"(?<![\w./~-])/content(?![\w.-])")
# Hidden folders in Colab's HOME, where notebooks put keys and settings; other paths below /root may be the user's.
_HOME = re.compile(r"(?<![\w./~-])/root(?=/\.\w)")
_SHELL_LINE = re.compile(r"^\s*(?:[\w\s,.\[\]'\"]+=\s*)?[!%]")


@dataclass(frozen=True)
class ContentFolder:
    """How the job sees its folder. `prefix` comes before the kernel's command line; `path` is where its cells start."""

    kind: str
    folder: Path
    home: Path
    path: Path = CONTENT
    prefix: tuple[str, ...] = ()
    notice: str = ""
    _release: list[Callable[[], None]] = field(default_factory=list, repr=False)

    def source(self, text: str) -> str:
        """A cell's source as it is to be executed."""
        places = {_HOME: self.home}
        if self.kind == "literals":
            places[_CONTENT] = self.folder
        return replaced(text, places)

    def release(self) -> None:
        """Undo what was done outside the job's folder."""
        while self._release:
            self._release.pop()()


def prepare(folder: Path, home: Path) -> ContentFolder:
    """Give the job's `folder`, which exists, the name `/content`; `home` is the job's HOME.

    Raises `InputError` for a `HAVERSACK_CONTENT` that is no way, `JobError` when the way it names does not work here.
    """
    ways = {"namespace": _namespace, "bubblewrap": _bubblewrap, "folder": _folder, "literals": _literals}
    chosen = os.environ.get("HAVERSACK_CONTENT")
    if chosen and chosen not in ways:
        raise InputError(f"HAVERSACK_CONTENT is {chosen!r}.", f"It may be {', '.join(ways)}.")
    for name in [chosen] if chosen else ways:
        content = ways[name](folder, home)
        if content is not None:
            return content
    raise JobError(f"/content by {chosen} does not work on this machine.", "Unset HAVERSACK_CONTENT.")


def _namespace(folder: Path, home: Path) -> ContentFolder | None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return None
    made = not CONTENT.exists()
    try:
        CONTENT.mkdir(exist_ok=True)
    except OSError:
        return None
    script = 'mount --bind "$1" /content && cd /content && shift && exec "$@"'
    prefix = ("unshare", "--mount", "--", "/bin/sh", "-c", script, "sh", str(folder))
    if not _works(prefix):
        if made:
            CONTENT.rmdir()
        return None
    return ContentFolder("namespace", folder, home, prefix=prefix)


def _bubblewrap(folder: Path, home: Path) -> ContentFolder | None:
    if shutil.which("bwrap") is None:
        return None
    own = {"content": folder} if os.geteuid() == 0 else {"content": folder, "root": home}
    # Root of its own user namespace, which owns the mounts: that is what FUSE asks for.
    prefix = ["bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--cap-add", "CAP_SYS_ADMIN", "--die-with-parent"]
    for entry in sorted(Path("/").iterdir()):
        if entry.is_symlink():
            prefix += ["--symlink", os.readlink(entry), str(entry)]
        elif entry.name not in own and entry.is_dir():
            prefix += ["--dev-bind-try", str(entry), str(entry)]
        elif entry.is_file():
            prefix += ["--ro-bind-try", str(entry), str(entry)]
    for name, bound in own.items():
        prefix += ["--bind", str(bound), f"/{name}"]
    prefix += ["--chdir", "/content", "--"]
    return ContentFolder("bubblewrap", folder, home, prefix=tuple(prefix)) if _works(prefix) else None


def _folder(folder: Path, home: Path) -> ContentFolder | None:
    if os.geteuid() != 0:
        return None
    lock = open(_LOCK, "w")  # noqa: SIM115 - held until the job ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if CONTENT.is_symlink():
            # Only a job makes such a link, and the lock says that its job is gone.
            CONTENT.unlink()
        was_there = CONTENT.is_dir()
        if was_there:
            CONTENT.rmdir()
        CONTENT.symlink_to(folder)
    except OSError:
        lock.close()
        return None
    return ContentFolder("folder", folder, home, _release=[lambda: _unlink(lock, was_there)])


def _unlink(lock: IO[str], was_there: bool) -> None:
    CONTENT.unlink()
    if was_there:
        CONTENT.mkdir()
    lock.close()


def _literals(folder: Path, home: Path) -> ContentFolder:
    notice = f"This machine gives the job no /content of its own, so its cells run with {folder} in its place."
    return ContentFolder("literals", folder, home, path=folder, notice=notice)


def mounted_below(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> list[Path]:
    """Where something is mounted at or below `folder`; nothing where the system does not say (macOS)."""
    try:
        lines = mounts.read_text().splitlines()
    except FileNotFoundError:
        return []
    points = [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]
    return [point for point in points if point.is_relative_to(folder.resolve())]


def _works(prefix: tuple[str, ...] | list[str]) -> bool:
    trial = subprocess.run([*prefix, "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return trial.returncode == 0


def replaced(source: str, places: Mapping[re.Pattern[str], Path]) -> str:
    """`source` with what each pattern finds replaced, but only in string literals and in shell and magic lines."""
    if not any(pattern.search(source) for pattern in places):
        return source
    if source.lstrip().startswith("%%"):
        first, newline, body = source.partition("\n")
        is_python = first.split()[0] in ("%%time", "%%timeit", "%%capture", "%%prun")
        return _replace(first, places) + newline + (replaced if is_python else _replace)(body, places)
    lines = source.split("\n")
    shell = _shell_lines(lines)
    python = ["" if number in shell else line for number, line in enumerate(lines)]
    for number, start, end in reversed(_strings(python)):
        line = lines[number]
        lines[number] = line[:start] + _replace(line[start:end], places) + line[end:]
    return "\n".join(_replace(line, places) if number in shell else line for number, line in enumerate(lines))


def _replace(text: str, places: Mapping[re.Pattern[str], Path]) -> str:
    for pattern, folder in places.items():
        text = pattern.sub(str(folder).replace("\\", "\\\\"), text)
    return text


def _shell_lines(lines: list[str]) -> set[int]:
    """The lines that start a shell command or a magic, with those that continue them after a backslash."""
    found: set[int] = set()
    for number, line in enumerate(lines):
        continues = number - 1 in found and lines[number - 1].rstrip().endswith("\\")
        if continues or _SHELL_LINE.match(line):
            found.add(number)
    return found


def _strings(lines: list[str]) -> list[tuple[int, int, int]]:
    """Where string literals lie: line, first and last column, one entry for each line of a literal, in order."""
    kinds = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    spans: list[tuple[int, int, int]] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline):
            if token.type not in kinds:
                continue
            (first, start), (last, end) = token.start, token.end
            for number in range(first, last + 1):
                left = start if number == first else 0
                right = end if number == last else len(lines[number - 1])
                spans.append((number - 1, left, right))
    except (tokenize.TokenError, SyntaxError):
        return spans  # what stands after the mistake never runs
    return spans
