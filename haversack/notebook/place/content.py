"""A job's `/content` and `/kaggle`: the folders that Colab's and Kaggle's notebooks work in, private to one job.

Runs in the process of `haversack run`. `prepare` uses the first of these methods that works on this machine:

    namespace    root only. The kernel runs in its own mount namespace, with the job's folder bind-mounted on /content.
    bubblewrap   The kernel runs under `bwrap` (user namespaces) in a new root with all folders of the real one and with
                 /content. FUSE works inside.
    folder       root only, for containers that forbid namespaces. /content is a symbolic link to the job's folder, so
                 only one job can have it at a time.
    literals     The last resort. `/content` in string literals and shell lines is replaced by the job's folder in the
                 source that is sent to the kernel; a notice says so. The saved notebook keeps its own source.

A notebook that speaks of Kaggle gets `/kaggle` by the same method, from a folder in which the inputs are mounted
already. The first two can also mount a private environment for the job, as an overlay (`with_overlay`).

`HAVERSACK_CONTENT` may name one of them. On Colab, HOME is `/root`. With every method, paths of hidden folders below
`/root`, such as `/root/.kaggle`, are replaced by those of the job's HOME, in the way that `literals` replaces
`/content`. Under bubblewrap, an ordinary user's job also sees its HOME at `/root`.

Removing the folder /content detaches the mounts on it in all other mount namespaces (mount_namespaces(7)), so it would
take /content from running jobs. A file lock prevents that: a job by `namespace` holds it shared and a job by `folder`
holds it exclusively, from `prepare` to `release`.
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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from haversack.errors import InputError, JobError

CONTENT, KAGGLE = Path("/content"), Path("/kaggle")
METHODS = ("namespace", "bubblewrap", "folder", "literals")
# FUSE requires a process that is root of the user namespace that owns the mounts. A sandbox in it has a user namespace
# of its own, in which this one's root can be mapped with CAP_SETFCAP only (user_namespaces(7)).
_USER_NAMESPACE = (
    *("--unshare-user", "--uid", "0", "--gid", "0", "--die-with-parent"),
    *("--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_SETFCAP"),
)
_LOCK = Path("/run/haversack-content.lock")
# Characters that mean something in the options of an overlay.
_UNSAFE = re.compile(r"[,:\\]")

_CONTENT = re.compile(r"(?<![\w./~-])/content(?![\w.-])")
_KAGGLE = re.compile(r"(?<![\w./~-])/kaggle(?![\w.-])")
# Hidden folders in Colab's HOME hold keys and settings. Other paths below /root may be files of this machine.
_HOME = re.compile(r"(?<![\w./~-])/root(?=/\.\w)")
_SHELL_LINE = re.compile(r"^\s*(?:[\w\s,.\[\]'\"]+=\s*)?[!%]")


@dataclass(frozen=True)
class ContentFolder:
    """A prepared `/content`, and `/kaggle` where there is one.

    Attributes:
        kind: the method: "namespace", "bubblewrap", "folder" or "literals".
        folder: the folder that holds the files of `/content`.
        home: the job's HOME.
        path: the path under which the cells see `folder`.
        kaggle: the folder that holds the files of `/kaggle`; None if the job has none.
        works_in_kaggle: whether the cells' working directory is `/kaggle/working`, and not `/content`.
        prefix: arguments to put before the kernel's command line.
        notice: a sentence for the user; "" for none.
    """

    kind: str
    folder: Path
    home: Path
    path: Path = CONTENT
    kaggle: Path | None = None
    works_in_kaggle: bool = False
    prefix: tuple[str, ...] = ()
    notice: str = ""
    _release: list[Callable[[], None]] = field(default_factory=list, repr=False)

    @property
    def cwd(self) -> Path:
        """The folder, by its path on this machine, in which the kernel is started."""
        return self.kaggle / "working" if self.kaggle and self.works_in_kaggle else self.folder

    @property
    def cwd_of_cells(self) -> Path:
        """The same folder by its path in the cells."""
        if self.path != CONTENT:
            return self.cwd  # what the cells see are the folders themselves
        return KAGGLE / "working" if self.kaggle and self.works_in_kaggle else CONTENT

    def rewrite(self, source: str) -> str:
        """Return the source to execute for a cell's `source`.

        Paths of hidden folders below `/root` and, with the method "literals", `/content` and `/kaggle` are replaced as
        the module describes.
        """
        replacements = {_HOME: self.home}
        if self.kind == "literals":
            replacements[_CONTENT] = self.folder
            if self.kaggle:
                replacements[_KAGGLE] = self.kaggle
        return replace_paths(source, replacements)

    def with_overlay(self, lower: Path, own: Path, target: Path) -> ContentFolder | None:
        """Return this `/content` with one more mount for the kernel: the folder `lower`, changed by what `own` has.

        It is an overlay file system (https://docs.kernel.org/filesystems/overlayfs.html) on the existing folder
        `target`. `lower` is never written to; what the job changes is in `own/upper`. `own` has the existing, empty or
        prepared folder `upper` and an empty one, `work`. None if the method or this machine does not allow it.
        """
        options = f"lowerdir={lower},upperdir={own / 'upper'},workdir={own / 'work'}"
        if self.kind not in ("namespace", "bubblewrap") or _UNSAFE.search(f"{lower}{own}"):
            return None
        options += ",userxattr" if self.kind == "bubblewrap" else ""
        mount = ("/bin/sh", "-c", 'mount -t overlay overlay -o "$1" "$2" && shift 2 && exec "$@"', "sh")
        prefix = (*self.prefix, *mount, options, str(target))
        return replace(self, prefix=prefix) if _works(prefix) else None

    def release(self) -> None:
        """Remove the links that the method made, and then the file lock. A second call does nothing."""
        while self._release:
            self._release.pop()()


def prepare(folder: Path, home: Path, kaggle: Path | None = None, *, works_in_kaggle: bool = False) -> ContentFolder:
    """Make the existing `folder` the job's `/content` by the first method that works, and return it prepared.

    `home` is the job's HOME. `kaggle` is an existing folder with a folder `working`, which becomes the job's `/kaggle`;
    with `works_in_kaggle`, cells start in `/kaggle/working`. `HAVERSACK_CONTENT` in the environment chooses one method.
    The caller must `release` the result. Raises `InputError` if that variable names no method, and `JobError` if its
    method does not work on this machine.
    """
    plan = ContentFolder("", folder, home, kaggle=kaggle, works_in_kaggle=works_in_kaggle)
    methods = {"namespace": _namespace, "bubblewrap": _bubblewrap, "folder": _folder, "literals": _literals}
    chosen = os.environ.get("HAVERSACK_CONTENT")
    if chosen and chosen not in METHODS:
        raise InputError(f"HAVERSACK_CONTENT is {chosen!r}.", f"Set it to one of {', '.join(METHODS)}.")
    for name in [chosen] if chosen else methods:
        content = methods[name](plan)
        if content is not None:
            return content
    raise JobError(f"HAVERSACK_CONTENT={chosen} does not work on this machine.", "Unset HAVERSACK_CONTENT.")


def method() -> str:
    """Return the name of the method that `prepare` would most likely use now; nothing is changed, no lock is taken.

    `HAVERSACK_CONTENT` is heeded as by `prepare`, but its method is not tried. Raises `InputError` if that variable
    names no method.
    """
    chosen = os.environ.get("HAVERSACK_CONTENT")
    if chosen and chosen not in METHODS:
        raise InputError(f"HAVERSACK_CONTENT is {chosen!r}.", f"Set it to one of {', '.join(METHODS)}.")
    if chosen:
        return chosen
    is_root = os.geteuid() == 0
    if is_root and shutil.which("unshare") and _works(["unshare", "--mount", "--"]):
        return "namespace"
    if shutil.which("bwrap") and _works(["bwrap", *_USER_NAMESPACE, "--dev-bind", "/", "/", "--"]):
        return "bubblewrap"
    return "folder" if is_root else "literals"


def _namespace(plan: ContentFolder) -> ContentFolder | None:
    if os.geteuid() != 0 or shutil.which("unshare") is None or (lock := _lock(fcntl.LOCK_SH)) is None:
        return None
    mounts = _roots(plan)
    created = [path for path in mounts if not path.exists()]
    try:
        for path in created:
            path.mkdir(exist_ok=True)
    except OSError:
        lock.close()
        return None
    # Recursively: the inputs are mounted below the folder that becomes /kaggle.
    binds = "".join(f'mount --rbind "$1" {path} && shift && ' for path in mounts)
    script = f'{binds}cd {plan.cwd_of_cells} && exec "$@"'
    prefix = ("unshare", "--mount", "--", "/bin/sh", "-c", script, "sh", *map(str, mounts.values()))
    if not _works(prefix):
        for path in created:
            path.rmdir()
        lock.close()
        return None
    return replace(plan, kind="namespace", prefix=prefix, _release=[lock.close])


def _bubblewrap(plan: ContentFolder) -> ContentFolder | None:
    if shutil.which("bwrap") is None:
        return None
    own = {path.name: folder for path, folder in _roots(plan).items()}
    if os.geteuid() != 0:
        own["root"] = plan.home
    prefix = ["bwrap", *_USER_NAMESPACE]
    for entry in sorted(Path("/").iterdir()):
        if entry.name in own:
            continue
        if entry.is_symlink():
            prefix += ["--symlink", os.readlink(entry), str(entry)]
        elif entry.is_dir():
            prefix += ["--dev-bind-try", str(entry), str(entry)]
        elif entry.is_file():
            prefix += ["--ro-bind-try", str(entry), str(entry)]
    for name, bound in own.items():
        prefix += ["--bind", str(bound), f"/{name}"]
    prefix += ["--chdir", str(plan.cwd_of_cells), "--"]
    return replace(plan, kind="bubblewrap", prefix=tuple(prefix)) if _works(prefix) else None


def _folder(plan: ContentFolder) -> ContentFolder | None:
    if os.geteuid() != 0 or (lock := _lock(fcntl.LOCK_EX)) is None:
        return None
    release: list[Callable[[], None]] = [lock.close]
    try:
        for path, folder in _roots(plan).items():
            release.append(_link(path, folder))
    except OSError:
        for undo in reversed(release):
            undo()
        return None
    return replace(plan, kind="folder", _release=release)


def _roots(plan: ContentFolder) -> dict[Path, Path]:
    """Return the folders that cells expect at the root of the file system: path → the folder to show there."""
    return {CONTENT: plan.folder, **({KAGGLE: plan.kaggle} if plan.kaggle else {})}


def _lock(kind: int) -> IO[str] | None:
    """Lock the machine's /content, `fcntl.LOCK_SH` or `LOCK_EX`, until the returned file is closed.

    None if another job's lock conflicts, or if the lock file cannot be opened.
    """
    try:
        lock = open(_LOCK, "w")  # noqa: SIM115 - held until the job ends
    except OSError:
        return None
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


def _link(path: Path, folder: Path) -> Callable[[], None]:
    """Make `path` a symbolic link to `folder`; return the function that restores what was there.

    Raises `OSError` if something else than a link or an empty folder is there.
    """
    if path.is_symlink():
        # A leftover of a killed job: only jobs create this link, and no job holds the lock.
        path.unlink()
    was_there = path.is_dir()
    if was_there:
        path.rmdir()
    path.symlink_to(folder)

    def restore() -> None:
        path.unlink()
        if was_there:
            path.mkdir()

    return restore


def _literals(plan: ContentFolder) -> ContentFolder:
    roots = _roots(plan)
    missing, given = (" and ".join(map(str, paths)) for paths in (roots, roots.values()))
    notice = f"This machine gives the job no {missing}, so its cells are executed with {given} instead."
    return replace(plan, kind="literals", path=plan.folder, notice=notice)


def mounted_below(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> list[Path]:
    """Return the mount points at or below `folder`; [] if there is no mount table (macOS).

    `mounts` is the mount table, in the format of `/proc/PID/mountinfo` (proc(5)).
    """
    try:
        lines = mounts.read_text().splitlines()
    except FileNotFoundError:
        return []
    points = [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]
    return [point for point in points if point.is_relative_to(folder.resolve())]


def _works(prefix: tuple[str, ...] | list[str]) -> bool:
    """Whether the command `true` succeeds behind `prefix`."""
    trial = subprocess.run([*prefix, "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return trial.returncode == 0


def replace_paths(source: str, replacements: Mapping[re.Pattern[str], Path]) -> str:
    """Return `source`, a cell's, with each match of a pattern replaced by the path that `replacements` has for it.

    Only string literals and shell and magic lines are changed, and all of a cell magic's body unless it is Python.
    """
    if not any(pattern.search(source) for pattern in replacements):
        return source
    if source.lstrip().startswith("%%"):
        first, newline, body = source.partition("\n")
        is_python = first.split()[0] in ("%%time", "%%timeit", "%%capture", "%%prun")
        replace_body = replace_paths if is_python else _replace
        return _replace(first, replacements) + newline + replace_body(body, replacements)
    lines = source.split("\n")
    shell = _shell_lines(lines)
    python = ["" if number in shell else line for number, line in enumerate(lines)]
    for number, start, end in reversed(_string_spans(python)):
        line = lines[number]
        lines[number] = line[:start] + _replace(line[start:end], replacements) + line[end:]
    return "\n".join(_replace(line, replacements) if number in shell else line for number, line in enumerate(lines))


def _replace(text: str, replacements: Mapping[re.Pattern[str], Path]) -> str:
    for pattern, folder in replacements.items():
        text = pattern.sub(str(folder).replace("\\", "\\\\"), text)
    return text


def _shell_lines(lines: list[str]) -> set[int]:
    """Return the indices of lines that are a shell command or a magic, or continue one after a backslash."""
    found: set[int] = set()
    for number, line in enumerate(lines):
        continues = number - 1 in found and lines[number - 1].rstrip().endswith("\\")
        if continues or _SHELL_LINE.match(line):
            found.add(number)
    return found


def _string_spans(lines: list[str]) -> list[tuple[int, int, int]]:
    """Return the spans of string literals as (line index, start column, end column), in order.

    A literal of several lines has one span for each line.
    """
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
        return spans  # a cell with a syntax error is not executed, so its other spans do not matter
    return spans
