"""A notebook's lock: the exact version and hashes of every package that its environment holds.

It is resolved by `uv pip compile` for one platform, Python version and accelerator. Its text is a requirements file
that pip and uv read, with what it was made for in comments at its top:

    # haversack lock
    # python: 3.11.7
    # platform: linux-x86_64
    # accelerator: cpu
    pandas==2.3.3 \\
        --hash=sha256:…

Beside what the notebook needs (`requirements`), it has `KERNEL`, and haversack's own dependencies where the
notebook imports haversack. What the notebook's own pip cells install is not in it. A lock that the notebook carries
(juv's `uv.lock`) decides the versions, where it fits the notebook's own list.

The same inputs give the same lock for a day, without asking an index again (`Locker.find`).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path

from haversack import disk, progress
from haversack.errors import HaversackError, InputError, InstallFailed, IntegrityError
from haversack.packages import accelerator as accelerator_
from haversack.packages import python as python_
from haversack.packages.pip_settings import uv_files
from haversack.packages.python import Python
from haversack.packages.requirements import Requirements
from haversack.packages.table import normalized
from haversack.packages.uv import Uv
from haversack.packages.uv_pip import until

KERNEL = ("ipykernel>=6.17.1", "pip", "setuptools", "six")
"""What every kernel's environment holds; many packages need the last two, which Colab has, without saying so."""
_TITLE = "# haversack lock"
_FRESH = 86400  # seconds for which a resolution is used again
_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?(?:==([^\s;\\]+)| @ (\S+))")
# Options of a requirements file that say where packages come from; an installation needs them too.
_SOURCES = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index")
# Options of pip that uv does not read in a file, but takes as its own; None: it needs none.
_TRANSLATED: dict[str, tuple[str, ...] | None] = {
    "--pre": ("--prerelease", "allow"),
    "--prefer-binary": None,
    "--use-feature": None,
    "--use-pep517": None,
}


@dataclass(frozen=True)
class Lock:
    """A lock.

    Attributes:
        python: the version of Python, such as "3.11.7".
        platform: the system and machine, such as "linux-x86_64".
        accelerator: "cpu" or "cuda".
        torch: uv's `--torch-backend` that chose PyTorch's builds; "" for none.
        as_of: the day that `--as-of` named, such as "2026-07-31"; "" for none.
        pins: a requirements file with every package's version and hashes, and options that say where they come from.
    """

    python: str
    platform: str
    accelerator: str
    torch: str
    as_of: str
    pins: str

    @property
    def text(self) -> str:
        """The whole lock; `decode` reads it."""
        head = [f"# {name}: {value}" for name in _HEAD if (value := getattr(self, name))]
        return "\n".join([_TITLE, *head, self.pins])

    @classmethod
    def decode(cls, text: str) -> Lock:
        """Return the lock of this `text`. Raises `InputError` if it is none."""
        first, _, rest = text.partition("\n")
        if first != _TITLE:
            raise InputError("The file is not a lock of haversack's.", "Make one: haversack env lock NB.ipynb")
        values = dict.fromkeys(_HEAD, "")
        while found := re.match(r"# (\w+): (.*)\n", rest):
            if found[1] in values:
                values[found[1]] = found[2]
            rest = rest[found.end() :]
        return cls(**values, pins=rest)

    @cached_property
    def packages(self) -> dict[str, str]:
        """The normalized name of every package → its version, or its address."""
        found = (_PIN.match(line) for line in self.pins.splitlines())
        return {normalized(one[1]): one[2] or one[3] for one in found if one}

    @property
    def fits(self) -> bool:
        """Whether it was made for this platform and accelerator."""
        return (self.platform, self.accelerator) == (here(), accelerator_.accelerator())


_HEAD = ("python", "platform", "accelerator", "torch", "as_of")


def here() -> str:
    """This system and machine, such as "linux-x86_64"."""
    return f"{sys.platform}-{platform.machine()}"


def day_of(as_of: str) -> str:
    """Return the last day of what `--as-of` names: a day, a month such as 2026-07, or a year, as "2026-07-31".

    Raises `InputError` for anything else and for a day that is not over.
    """
    found = re.fullmatch(r"(\d{4})(?:-(\d\d))?(?:-(\d\d))?", as_of)
    try:
        if found is None:
            raise ValueError
        year, month, day = int(found[1]), int(found[2] or 12), int(found[3] or 1)
        last = date(year, month, day)
    except ValueError:
        raise InputError(
            f"--as-of does not accept {as_of!r}.", "Give a day or a month: 2026-07-15, or 2026-07"
        ) from None
    if found[3] is None:
        last = date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)
    if last >= datetime.now(UTC).date():
        raise InputError(
            f"{last} is not over, so --as-of cannot fix the versions of that day.", "Give an earlier date."
        )
    return last.isoformat()


@dataclass(frozen=True)
class Locker:
    """Makes locks.

    Attributes:
        folder: the folder for resolutions that are used again and for temporary files, in the cache.
        uv: runs uv, shows progress and prints notices.
    """

    folder: Path
    uv: Uv

    def find(
        self,
        needed: Requirements,
        *,
        python: str = "",
        as_of: str = "",
        known: Lock | None = None,
        fresh: bool = False,
    ) -> Lock:
        """Return the lock for what a notebook needs, on this machine.

        Args:
            needed: what it needs; `needed.check()` is the caller's.
            python: a version of Python that takes precedence over the notebook's own; "" for none.
            as_of: a day, as `day_of` returns it: no later releases are used; "" for none.
            known: a lock of the same notebook for another machine, whose versions are kept where that is possible.
            fresh: ask the indexes, even if the same was resolved within a day.

        Raises what `python.find` and `Uv.run` raise, and `IntegrityError` if a package has another hash than the lock
        in the notebook says.
        """
        with self._scratch() as scratch:
            chosen = python_.find(python or needed.python, self.uv, scratch)
            request = _Request(needed, chosen, accelerator_.accelerator(), as_of)
            kept = self._file(request, known)
            if not fresh and _is_fresh(kept):
                return Lock.decode(kept.read_text())
            lock = _Resolution(self.uv, scratch, request, known).result()
            disk.write(kept, lock.text, durable=False)
            return lock

    def kept(self, needed: Requirements) -> Lock | None:
        """Return the lock of what a notebook needs that was made within a day; None if there is none.

        Nothing is resolved or fetched, so only a lock for haversack's own Python is found.
        """
        python = python_.own()
        if needed.python and not python_.allows(needed.python, python.version):
            return None
        file = self._file(_Request(needed, python, accelerator_.accelerator(), ""), None)
        return Lock.decode(file.read_text()) if _is_fresh(file) else None

    def python_of(self, lock: Lock) -> Python:
        """Return an interpreter for `lock`: of its version, or of another of the same minor version.

        Raises `InputError` or `InstallFailed` if there is none.
        """
        with self._scratch() as scratch:
            return python_.find(".".join(lock.python.split(".")[:2]), self.uv, scratch)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A temporary folder in `folder`, which is created if missing."""
        place = self.folder / f"{disk.TEMPORARY}{secrets.token_hex(6)}"
        place.mkdir(parents=True)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _file(self, request: _Request, known: Lock | None) -> Path:
        """Where the lock is kept: its name is a hash of everything that decides it, indexes and sign-ins included.

        What an index or a folder of wheels has is not among it: that is looked at again after a day.
        """
        settings = self.uv.settings
        parts = (
            *(one.text for one in request.needed.requirements),
            *request.needed.options,
            *KERNEL,
            *own_dependencies(request.needed),
            *(request.needed.lock, request.needed.block),
            *(request.python.version, here(), request.accelerator, request.as_of),
            *(f"{name}={value}" for name, value in sorted(self.uv.variables().items()) if name.startswith("UV_")),
            *settings.arguments,
            *_contents(_files_read(request.needed.options, self.uv.variables())),
            known.text if known else "",
        )
        return self.folder / f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}.lock"


def _files_read(options: Sequence[str], variables: Mapping[str, str]) -> list[Path]:
    """The files that uv reads besides: constraints that the notebook or pip's configuration names, and its own."""
    named = [value for option in options for name, _, value in [option.partition(" ")] if name == "-c"]
    return [*map(Path, [*named, *variables.get("UV_CONSTRAINT", "").split()]), *uv_files(variables)]


def _contents(files: Iterable[Path]) -> Iterator[str]:
    """Yield the text of each file; "" for one that is not there or is an address."""
    for file in files:
        try:
            yield file.read_text(errors="replace")
        except OSError:
            yield ""


def _is_fresh(file: Path) -> bool:
    return file.exists() and time.time() - file.stat().st_mtime < _FRESH


@dataclass(frozen=True)
class _Request:
    """What is to be locked, for which Python, accelerator and day."""

    needed: Requirements
    python: Python
    accelerator: accelerator_.Accelerator
    as_of: str


class _Resolution:
    """One resolution, in the temporary folder `scratch`."""

    def __init__(self, uv: Uv, scratch: Path, request: _Request, known: Lock | None) -> None:
        self._uv = uv
        self._scratch = scratch
        self._request = request
        self._known = known
        self._arguments: list[str] = []

    def result(self) -> Lock:
        self._write_input()
        self._uv.show("resolving")
        carried = self._carried_pins()
        lock = self._with_carried(carried) if carried else self._compile()
        return self._for_accelerator(lock)

    def _write_input(self) -> None:
        """Write the requirements file that uv resolves, `requirements.in`."""
        needed = self._request.needed
        lines = []
        for option in needed.options:
            name = re.split(r"[ =]", option, maxsplit=1)[0]
            if name not in _TRANSLATED:
                lines.append(option)
            elif arguments := _TRANSLATED[name]:
                self._arguments += arguments
        lines += [_for(self._request.accelerator, one.text) for one in needed.requirements]
        lines += [*KERNEL, *own_dependencies(needed)]
        (self._scratch / "requirements.in").write_text("\n".join(lines) + "\n")

    def _compile(self, constraints: Sequence[str] = (), torch: str = "", form: str = "requirements.txt") -> Lock:
        """Resolve within the `constraints`, requirements as pip takes them, and return the lock."""
        (self._scratch / "constraints.txt").write_text("\n".join(constraints) + "\n")
        out = self._scratch / ("pylock.toml" if form == "pylock.toml" else "requirements.txt")
        if self._known is not None and not out.exists():
            out.write_text(self._known.pins)  # uv prefers the versions in the file that it is to write
        command = ["pip", "compile", "requirements.in", "-c", "constraints.txt", "-o", out.name, "--format", form]
        command += ["-p", str(self._request.python.path), "-q", "--no-header", "--no-annotate", "--generate-hashes"]
        # A -c replaces those of the variable.
        for constraint in self._uv.variables().get("UV_CONSTRAINT", "").split():
            command += ["-c", constraint]
        command += [*self._uv.settings.arguments, *self._arguments]
        command += until(self._request.as_of)
        if torch:
            command += ["--torch-backend", torch]
        self._uv.run(*command, cwd=self._scratch)
        sources = [option for option in self._request.needed.options if re.split(r"[ =]", option)[0] in _SOURCES]
        pins = "\n".join([*sources, out.read_text()])
        request = self._request
        return Lock(request.python.version, here(), request.accelerator, torch, request.as_of, pins)

    # A lock that the notebook carries

    def _carried_pins(self) -> list[str]:
        """The versions in the notebook's own lock, as requirements with hashes; [] without a lock that can be used."""
        needed = self._request.needed
        if not needed.lock:
            return []
        listed = ", ".join(f'"{one.text}"' for one in needed.requirements)
        block = needed.block or f"dependencies = [{listed}]\n"
        script = "".join(f"# {line}\n" for line in ["/// script", *block.splitlines(), "///"])
        (self._scratch / "notebook.py").write_text(script)
        (self._scratch / "notebook.py.lock").write_text(needed.lock)
        command = ["export", "--script", "notebook.py", "--frozen", "--no-header", "--no-annotate", "-q"]
        try:
            exported = self._uv.run(*command, "-p", str(self._request.python.path), cwd=self._scratch)
        except HaversackError as error:
            self._cannot_use(error.what)
            return []
        joined = re.sub(r"\\\n\s*", "", exported).splitlines()
        return [line for line in joined if _PIN.match(line)]

    def _with_carried(self, carried: Sequence[str]) -> Lock:
        """Return the lock with the versions that the notebook's own lock has, each with a hash that is in both."""
        try:
            lock = self._compile([line.partition(" --hash=")[0].rstrip() for line in carried])
        except InstallFailed as error:
            self._cannot_use(error.what)
            return self._compile()
        allowed = {normalized(found[1]): set(_hashes(line)) for line in carried if (found := _PIN.match(line))}
        return replace(lock, pins=_restricted(lock.pins, allowed))

    def _cannot_use(self, why: str) -> None:
        self._uv.notify(f"The uv.lock in the notebook's metadata cannot be used, so its versions are not kept: {why}")

    # PyTorch's builds

    def _for_accelerator(self, lock: Lock) -> Lock:
        """Return `lock` with the build of PyTorch that this machine can use; see `accelerator`."""
        is_cpu = self._request.accelerator == "cpu"
        fits = accelerator_.is_cpu_build(lock.packages) if is_cpu else not accelerator_.has_cpu_parts(lock.packages)
        if "torch" not in lock.packages or (is_cpu and fits):
            return lock
        variables = self._uv.variables()
        if accelerator_.pytorch_index_answers(self._uv.cache.parent, variables):
            return self._compile(torch="cpu" if is_cpu else "auto")
        builds = accelerator_.CpuBuilds(self._request.python.minor, variables)
        for constraints in builds.constraints(lock.packages) if is_cpu else ():
            try:
                return self._compile(constraints)
            except InstallFailed:
                continue  # the notebook asks for another version
        if accelerator_.has_cpu_parts(lock.packages):
            lock = self._compile(builds.exclusions())
        if is_cpu:
            self._warn_of_cuda()
        return lock

    def _warn_of_cuda(self) -> None:
        """Print that only a CUDA build can be had, and how large that is."""
        try:
            self._compile(form="pylock.toml")
            size = accelerator_.cuda_size((self._scratch / "pylock.toml").read_text())
        except HaversackError:
            size = 0
        of = f" of {progress.size(size)}" if size else ""
        self._uv.notify(
            f"Only PyTorch's CUDA build{of} can be had here, though this machine has no GPU: PyTorch's index cannot be "
            "reached. A folder with CPU wheels can be named in pip's configuration: "
            "pip config set global.find-links FOLDER"
        )


def own_dependencies(needed: Requirements) -> list[str]:
    """Return what haversack itself depends on, if the notebook imports it; [] if not, or if it is not installed.

    The extra `train` is among it if the notebook uses Keras or JAX too. haversack's own code is not: the kernel has it
    from here, so that both are of one version.
    """
    if not needed.uses_haversack:
        return []
    try:
        own = importlib.metadata.requires("haversack") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    used = {module.name.partition(".")[0] for module in needed.modules}
    extra = "train" if used & {"keras", "jax"} else ""
    plain = [one for one in own if "extra ==" not in one]
    return plain + [one.partition(";")[0].strip() for one in own if extra and re.search(rf"extra == .{extra}.", one)]


def _for(accelerator: str, text: str) -> str:
    """The requirement `text`; on a machine with a GPU, JAX with CUDA for a plain `jax`, as on Colab."""
    return "jax[cuda12]" if accelerator == "cuda" and text == "jax" else text


def _hashes(line: str) -> list[str]:
    return re.findall(r"--hash=(\S+)", line)


def _restricted(pins: str, allowed: dict[str, set[str]]) -> str:
    """`pins` with only those hashes that are `allowed` (project → hashes; none for a project that is not there).

    Raises `IntegrityError` if a package has none of its allowed hashes.
    """
    lines = []
    for line in re.sub(r"\\\n\s*", "", pins).splitlines():
        found = _PIN.match(line)
        expected = allowed.get(normalized(found[1]), set()) if found else set()
        kept = [one for one in _hashes(line) if one in expected]
        if expected and _hashes(line) and not kept:
            assert found is not None
            raise IntegrityError(
                f"The index's file of {found[1]} is not the one in the notebook's lock.",
                "Lock the notebook again, or remove its lock.",
            )
        hashes = kept or _hashes(line)
        bare = line.partition(" --hash=")[0].rstrip()
        lines.append(" \\\n".join([bare, *(f"    --hash={one}" for one in hashes)]))
    return "\n".join(lines) + "\n"
