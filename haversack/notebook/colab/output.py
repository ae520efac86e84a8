"""`google.colab.output`: what a cell shows. Talking with the page needs Colab's own front end and is refused."""

from __future__ import annotations

import contextlib as _contextlib
from collections.abc import Callable as _Callable
from collections.abc import Iterator as _Iterator
from typing import Any as _Any
from typing import NoReturn as _NoReturn

from haversack.notebook.colab import errors as _errors

__all__ = ["clear", "eval_js", "register_callback", "use_tags"]


def clear(wait: bool = False, output_tags: str | tuple[str, ...] = ()) -> None:
    """Clear the cell's output; with `wait`, once the next output is there.

    Raises `errors.Error` for `output_tags`: only Colab's front end keeps parts of an output apart.
    """
    if output_tags:
        raise _errors.Error("Outputs have no tags here. Call clear() without output_tags to clear the whole output.")
    from IPython.display import clear_output as _clear_output

    _clear_output(wait=wait)


@_contextlib.contextmanager
def use_tags(tags: str | tuple[str, ...]) -> _Iterator[None]:
    """Outputs inside the block are shown as ever; the tags are not kept."""
    yield


def eval_js(script: str, ignore_result: bool = False, timeout_sec: float | None = None) -> _NoReturn:
    """Raises `errors.Error`: JavaScript runs in Colab's page, and no such page is open."""
    raise _errors.Error(
        "JavaScript cannot be evaluated here, because no Colab page is open. "
        "For a file use files.upload(); for a value give it with --param or userdata.get()."
    )


def register_callback(function_name: str, callback: _Callable[..., _Any]) -> _NoReturn:
    """Raises `errors.Error`, for the same reason as `eval_js`."""
    raise _errors.Error(
        "A callback cannot be registered here, because no Colab page is open to call it. Call the function from a cell."
    )
