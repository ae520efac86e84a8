"""The callback by which a fit calls its session: first of all callbacks, and without a state of its own."""

from __future__ import annotations

import functools
from typing import Any

from haversack.training.lightning.package import module
from haversack.training.lightning.session import FitSession


def callback(package: str, session: FitSession) -> Any:
    """Return a callback of the package that calls `session`."""
    return _class(package)(session)


@functools.cache
def _class(package: str) -> Any:
    base: Any = module(package).Callback

    class SessionCallback(base):  # type: ignore[misc]
        """Calls the session at the beginning and the end of fit and training, and in validation."""

        def __init__(self, session: FitSession) -> None:
            self._session = session

        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            self._session.fit_starts(pl_module)

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self._session.train_starts()

        def on_validation_batch_start(self, *arguments: Any, **named: Any) -> None:
            self._session.validation_batch_starts()

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            self._session.train_ends()

        def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
            self._session.fit_ends()

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            self._session.fails(exception)

    return SessionCallback
