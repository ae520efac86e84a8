"""`google.colab.output`: the output of a cell. Functions that call JavaScript in Colab's page raise an error."""

from __future__ import annotations

import contextlib as _contextlib
from collections.abc import Callable as _Callable
from collections.abc import Iterator as _Iterator
from typing import Any as _Any
from typing import NoReturn as _NoReturn

from haversack.notebook.colab import errors as _errors

__all__ = ["clear", "eval_js", "register_callback", "use_tags"]


def clear(wait: bool = False, output_tags: str | tuple[str, ...] = ()) -> None:
    """Clear the running cell's output: at once or, with `wait`, when the next output arrives.

    Raises `errors.Error` if `output_tags` is given: only Colab's front end can clear a tagged part of an output.
    """
    if output_tags:
        raise _errors.Error("Outputs have no tags here. Call clear() without output_tags to clear the whole output.")
    from IPython.display import clear_output as _clear_output

    _clear_output(wait=wait)


@_contextlib.contextmanager
def use_tags(tags: str | tuple[str, ...]) -> _Iterator[None]:
    """Do nothing: outputs inside the block are shown without tags."""
    yield


def eval_js(script: str, ignore_result: bool = False, timeout_sec: float | None = None) -> _NoReturn:
    """Raise `errors.Error`: JavaScript needs Colab's page, and no such page is open."""
    raise _errors.Error(
        "JavaScript cannot be evaluated here, because no Colab page is open. "
        "For a file use files.upload(); for a value give it with --param or userdata.get()."
    )


def register_callback(function_name: str, callback: _Callable[..., _Any]) -> _NoReturn:
    """Raise `errors.Error`: only Colab's page could call the callback, and no such page is open."""
    raise _errors.Error(
        "A callback cannot be registered here, because no Colab page is open to call it. Call the function from a cell."
    )
