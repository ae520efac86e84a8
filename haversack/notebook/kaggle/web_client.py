"""`kaggle_web_client`: its errors. Its calls go to Kaggle's own notebook service, which no other machine has."""

from __future__ import annotations

from typing import Any

__all__ = ["BackendError", "CredentialError", "KaggleWebClient"]


class ShownError(Exception):
    """An error whose message is all that a reader needs: IPython shows it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class CredentialError(ShownError):
    """The caller may not have what was asked for."""


class BackendError(ShownError):
    """The service cannot answer."""


class KaggleWebClient:
    """The client of Kaggle's notebook service, of which every call raises `BackendError`."""

    def make_post_request(self, data: dict[str, Any], endpoint: str, timeout: int = 40) -> dict[str, Any]:
        """Raise `BackendError`; the arguments are those of Kaggle's own client."""
        raise BackendError(
            f"Kaggle's notebook service answers {endpoint} on Kaggle only. Read the files below /kaggle/input."
        )
