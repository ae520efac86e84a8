"""The user's cache of locks and environments, as the settings say."""

from __future__ import annotations

from haversack.packages.lock import Locker
from haversack.packages.store import Store
from haversack.packages.uv import Show, Uv
from haversack.settings import Settings


def open_cache(
    chosen: Settings, show: Show = lambda line: None, notify: Show = lambda line: None, *, builds: bool = True
) -> tuple[Locker, Store]:
    """Return what makes locks and environments in the user's cache.

    `show` shows a line of progress, which the next one replaces; `notify` prints a sentence that stays.
    Without `builds` no package is built here, so none whose wheel is missing is installed.
    """
    uv = Uv.make(chosen.cache, show, notify, builds=builds)
    folder = chosen.cache / "environments"
    return Locker(folder / "locks", uv), Store(folder, chosen.environments, uv)
