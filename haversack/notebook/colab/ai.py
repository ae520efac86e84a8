"""`google.colab.ai`: Google's language models from Colab, which only Colab's machines reach."""

from __future__ import annotations

from typing import NoReturn as _NoReturn

from haversack.notebook.colab import errors as _errors

__all__ = ["generate_text", "list_models"]

_UNREACHABLE = (
    "Colab's language models can be reached from Colab only. "
    "Use a provider's own client, with its key from userdata.get()."
)


def generate_text(prompt: str, model_name: str = "", stream: bool = False) -> _NoReturn:
    """Raise `errors.Error`: the models can be reached from Colab's machines only."""
    raise _errors.Error(_UNREACHABLE)


def list_models() -> _NoReturn:
    """Raise `errors.Error`, as `generate_text` does."""
    raise _errors.Error(_UNREACHABLE)
