"""`google.colab.output`: the output of a cell.

No Colab page is open, so outputs have no tags, areas or scroll bars: functions about those do nothing, and what they
would hide or move stays where it was printed. `eval_js`, whose result the page would compute, raises an error.
"""

from __future__ import annotations

import contextlib as _contextlib
import re as _re
from collections.abc import Callable as _Callable
from collections.abc import Iterable as _Iterable
from collections.abc import Iterator as _Iterator
from types import SimpleNamespace as _SimpleNamespace
from typing import Any as _Any

from haversack.notebook.colab import errors as _errors

__all__ = [
    "clear",
    "disable_custom_widget_manager",
    "enable_custom_widget_manager",
    "eval_js",
    "no_vertical_scroll",
    "redirect_to_element",
    "register_callback",
    "serve_kernel_port_as_iframe",
    "serve_kernel_port_as_window",
    "temporary",
    "to_default_area",
    "to_footer_area",
    "to_header_area",
    "use_tags",
]

# anywidget reads the address of the widget manager here; None means that there is none.
_widgets = _SimpleNamespace(_installed_url=None)
_PROXY_PORT = _re.compile(r"\s*google\.colab\.kernel\.proxyPort\(\s*(\d+)\s*(?:,[^()]*)?\)\s*;?\s*")


def clear(wait: bool = False, output_tags: str | _Iterable[str] = ()) -> None:
    """Clear the running cell's output: at once or, with `wait`, when the next output arrives.

    Does nothing if `output_tags` is given: outputs have no tags here, so no part of the output can be told apart.
    """
    if output_tags:
        return
    from IPython.display import clear_output as _clear_output

    _clear_output(wait=wait)


@_contextlib.contextmanager
def use_tags(tags: str | _Iterable[str], append: bool = True) -> _Iterator[set[str]]:
    """Do nothing: outputs inside the block are shown without tags. The block gets the set of `tags`."""
    yield {tags} if isinstance(tags, str) else set(tags)


@_contextlib.contextmanager
def temporary() -> _Iterator[None]:
    """Do nothing: outputs inside the block, which Colab clears at its end, stay."""
    yield


@_contextlib.contextmanager
def redirect_to_element(selector: _Any) -> _Iterator[None]:
    """Do nothing: outputs inside the block are shown in the cell's output, not in an element of a page."""
    yield


@_contextlib.contextmanager
def to_header_area() -> _Iterator[None]:
    """Do nothing: the cell's output has one area."""
    yield


@_contextlib.contextmanager
def to_footer_area() -> _Iterator[None]:
    """Do nothing: the cell's output has one area."""
    yield


@_contextlib.contextmanager
def to_default_area() -> _Iterator[None]:
    """Do nothing: the cell's output has one area."""
    yield


def no_vertical_scroll() -> None:
    """Do nothing: an executed notebook has no scroll bar of its own."""


def enable_custom_widget_manager(version: str = "5.0.0a") -> None:
    """Do nothing: Jupyter shows custom widgets without Colab's manager. `version` has no effect."""


def disable_custom_widget_manager() -> None:
    """Do nothing, as `enable_custom_widget_manager` does."""


def serve_kernel_port_as_iframe(
    port: int,
    path: str = "/",
    width: int | str = "100%",
    height: int | str = "400",
    cache_in_notebook: bool = False,
) -> None:
    """Print the address of `path` at `port` of this machine. The other arguments have no effect."""
    _print_address(port, path)


def serve_kernel_port_as_window(
    port: int, path: str = "/", anchor_text: str | None = None, skip_warning: bool = False
) -> None:
    """Print the address of `path` at `port` of this machine. The other arguments have no effect."""
    _print_address(port, path)


def eval_js(script: str, ignore_result: bool = False, timeout_sec: float | None = None) -> str | None:
    """Return the address of a port for `google.colab.kernel.proxyPort(PORT)`; all other JavaScript needs Colab's page.

    With `ignore_result` it is not evaluated, and None is returned. Otherwise raises `errors.Error`. `timeout_sec` has
    no effect.
    """
    if port := _PROXY_PORT.fullmatch(script):
        return f"http://localhost:{port[1]}/"
    if ignore_result:
        return None
    raise _errors.Error(
        "JavaScript cannot be evaluated here, because no Colab page is open. "
        "For a file use files.upload(); for a value give it with --param or userdata.get()."
    )


def register_callback(function_name: str, callback: _Callable[..., _Any]) -> None:
    """Do nothing: JavaScript of Colab's page would call `callback`, and no such page is open."""


def _print_address(port: int, path: str) -> None:
    print(f"Served while this kernel runs: http://localhost:{port}/{path.lstrip('/')}")
