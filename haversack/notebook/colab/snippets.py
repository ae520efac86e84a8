"""`google.colab.snippets`: snippets of code in Colab's side panel, which is not there."""

from __future__ import annotations

__all__ = ["register"]


def register(url: str) -> None:
    """Do nothing: there is no panel that could list the snippets of the notebook at `url`."""
