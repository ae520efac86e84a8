"""A job's packages: what its notebook needs is locked once, kept with the job, and made into an environment.

    lock/requirements.json   what the notebook needs (`packages.requirements`)
    lock/packages.lock       its lock (`packages.lock`)

Both are in the job's folder and, with a named hub, on its drive, so that every session and a resume on another machine
get the same versions. A machine of another kind, such as one with a GPU, locks again, and keeps versions where it can.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack import disk, settings
from haversack.errors import InputError
from haversack.notebook.clients import interpreter
from haversack.notebook.job import locking, untrusted
from haversack.notebook.record import document
from haversack.notebook.record.screen import Screen
from haversack.notebook.record.store import LOCK, NEEDED, Options
from haversack.packages import keras_backend
from haversack.packages import python as python_
from haversack.packages.cache import open_cache
from haversack.packages.imports import code_cells
from haversack.packages.lock import Lock, Locker, day_of
from haversack.packages.pip_settings import uv_settings
from haversack.packages.requirements import Requirements, requirements_of
from haversack.packages.store import Held, Store

_MOST_NAMED = 3  # packages that the summary names


@dataclass
class Packages:
    """The environment of a job's sessions, held until `release`.

    Attributes:
        held: the environment in the store.
        lock: its lock.
        needed: what the notebook needs.
        kept: whether the lock was the job's already.
        seconds: how long it took to lock and make it.
        storing: the thread that stores its packages on the drive; None if none does.
    """

    held: Held
    lock: Lock
    needed: Requirements
    kept: bool
    seconds: float
    storing: threading.Thread | None = None

    @property
    def tree(self) -> Path:
        """The folder of the environment, which nobody may write to."""
        return self.held.environment.tree

    def json(self) -> dict[str, Any]:
        """What the job's report says of it."""
        return {
            "key": self.held.environment.key,
            "requirements": [one.text for one in self.needed.requirements],
            "packages": len(self.lock.packages),
            "python": self.lock.python,
            "accelerator": self.lock.accelerator,
            "from_store": self.held.from_store,
            "seconds": round(self.seconds, 2),
        }

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that say where the clients of drive, hub and Kaggle run."""
        # A notebook that imports haversack has the clients' packages in its own environment.
        return {} if self.needed.uses_haversack else {interpreter.VARIABLE: "process"}

    @property
    def frameworks(self) -> set[str]:
        """Those of the frameworks that Keras runs on that it has."""
        return keras_backend.provided_by(self.lock.packages)

    @property
    def summary(self) -> str:
        """One line: what was installed, by which rule, and how long that took."""
        count = len(self.lock.packages)
        how = "from the store" if self.held.from_store else "installed"
        return f"environment: {self._wanted}: {count} packages {how} in {self.seconds:.1f} s"

    def release(self) -> None:
        """Wait until its packages are on the drive, if they are to be, then let it be evicted from the store."""
        if self.storing is not None:
            self.storing.join()
        self.held.release()

    @property
    def _wanted(self) -> str:
        """The packages that the notebook needs, and the rules that found them."""
        names = [one.project or one.text for one in self.needed.requirements]
        if not names:
            return "a kernel"
        more = len(names) - _MOST_NAMED
        named = ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        rules = dict.fromkeys(_rule(one.why) for one in self.needed.requirements)
        return f"{named} ({'the lock of the job' if self.kept else ', '.join(rules)})"


def needed_by(notebook: Any, folder: Path, pages: Mapping[str, Path]) -> Requirements:
    """Return what a notebook in `folder` needs that also runs the notebooks `pages`, name → path.

    Raises `InputError` if the notebook's own list or an environment that it describes cannot be read.
    """
    return requirements_of(code_cells(notebook), notebook["metadata"], folder, pages)


def check(needed: Requirements, python: str | None, *, trusted: bool = True) -> None:
    """Raise `InputError` if imports are unknown, haversack does not run on the Python that is asked for, or pip's
    configuration cannot be read.

    `python` is the version that takes precedence over the notebook's own; None for none. Without `trusted`, also if it
    names packages in ways that reach into this machine.
    """
    uv_settings()
    needed.check()
    if not trusted:
        untrusted.check_packages(needed)
    python_.check(python or needed.python)


def keep_needed(job: Path, needed: Requirements) -> None:
    """Write what the notebook needs to the folder of its job."""
    (job / NEEDED).parent.mkdir(exist_ok=True)
    disk.write(job / NEEDED, needed.encode())


def provide(
    job: Path, options: Options, chosen: settings.Settings, screen: Screen, notify: Callable[[str], None]
) -> Packages:
    """Lock and make the environment of the job in the folder `job`, or take its lock, and return it held.

    Raises `InputError` if the job's files are unreadable, and what `Locker.find` and `Store.get` raise.
    """
    started = time.monotonic()
    locker, store = _cache(chosen, screen, notify, options.trusted)
    needed, known = _read(job)
    with tempfile.TemporaryDirectory(prefix="haversack-") as scratch:
        page = locking.page_of(needed, options, notify)
        found = locking.Locked(known, kept=True) if known is not None and known.fits else None
        if found is None:
            found = locking.lock(locker, needed, options, known, page, Path(scratch))
            disk.write(job / LOCK, found.lock.text)
        held = store.get(found.lock, locker.python_of(found.lock), found.wheels)
    storing = page.store(found.page, held.environment.tree) if page is not None and found.page is not None else None
    return Packages(held, found.lock, needed, found.kept, time.monotonic() - started, storing)


def _cache(
    chosen: settings.Settings, screen: Screen, notify: Callable[[str], None], trusted: bool
) -> tuple[Locker, Store]:
    """Return the cache of locks and environments, with progress on `screen`.

    Without `trusted` no package is built, because that runs its code, in this process's name.
    """
    screen.show_activity("environment")
    return open_cache(chosen, screen.show_output, notify, builds=trusted)


def lock_notebook(
    notebook: Path,
    address: str = "",
    *,
    python: str | None = None,
    as_of: str | None = None,
    fresh: bool = False,
    trusted: bool = True,
) -> tuple[Requirements, Lock]:
    """Return what a notebook needs and its lock, with progress on standard error.

    `address` is where it was fetched from; `python` and `as_of` are those of `haversack run`; `fresh` asks the indexes,
    even if the same was resolved within a day; without `trusted` only wheels count. Raises `InputError` or
    `NotebookInvalid` for an unusable notebook or argument, and what `Locker.find` raises.
    """
    content = document.read(notebook, address)
    needed = needed_by(content, notebook.absolute().parent, {})
    check(needed, python, trusted=trusted)
    day = day_of(as_of) if as_of else ""
    with Screen() as screen:
        locker, _ = _cache(settings.load(), screen, screen.print_line, trusted)
        return needed, locker.find(needed, python=python or "", as_of=day, fresh=fresh)


def sync(
    notebook: Path,
    address: str = "",
    *,
    python: str | None = None,
    as_of: str | None = None,
    trusted: bool = True,
) -> Packages:
    """Make the environment of a notebook, with progress on standard error, and return it, not held any more.

    The arguments and errors are those of `lock_notebook`; besides, raises what `Store.get` raises.
    """
    started = time.monotonic()
    needed, lock = lock_notebook(notebook, address, python=python, as_of=as_of, trusted=trusted)
    with Screen() as screen:
        locker, store = _cache(settings.load(), screen, screen.print_line, trusted)
        held = store.get(lock, locker.python_of(lock))
    held.release()
    return Packages(held, lock, needed, False, time.monotonic() - started)


def secrets_of(uv_variables: Mapping[str, str]) -> list[str]:
    """The passwords in the addresses of the package indexes and proxies that uv is given."""
    found = (re.findall(r"://[^/@\s:]*:([^@/\s]+)@", value) for value in uv_variables.values())
    return [password for passwords in found for password in passwords]


def _read(job: Path) -> tuple[Requirements, Lock | None]:
    """Return what is kept in the folder `job`; the lock may be missing. Raises `InputError` if it cannot be read."""
    try:
        needed = Requirements.decode((job / NEEDED).read_text())
        return needed, Lock.decode((job / LOCK).read_text()) if (job / LOCK).exists() else None
    except (OSError, ValueError, TypeError, KeyError):
        raise InputError(f"{job / 'lock'} is not the lock of a job.", "Run the notebook as a new job.") from None


def _rule(why: str) -> str:
    """The rule by which a package was found, for people: `why` of a requirement without its details."""
    return "its imports" if why.startswith("import ") or "needs it" in why else why
