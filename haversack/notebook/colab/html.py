"""`google.colab.html`: HTML elements in a cell's output. Here they are static: no page calls back into the kernel."""

from __future__ import annotations

import html as _html
from collections.abc import Callable as _Callable
from typing import Any as _Any
from typing import NoReturn as _NoReturn

from haversack.notebook.colab import errors as _errors

__all__ = ["Element", "create_resource"]


class Element:
    """An HTML element with attributes and children, shown as the HTML that its attributes and children give."""

    def __init__(
        self,
        tag: str,
        attributes: dict[str, str] | None = None,
        properties: dict[str, _Any] | None = None,
        src: dict[str, str] | None = None,
    ) -> None:
        """Make an element named `tag`. Properties are kept but not shown, since only scripts read them.

        `src` names the element's source by the key "script", "module" or "html". Raises `ValueError` if it has another
        key or an argument is not a dict.
        """
        if src and not src.keys() & {"script", "module", "html"}:
            raise ValueError("Must provide a valid src.")
        for name, value in (("attributes", attributes), ("properties", properties)):
            if value is not None and not isinstance(value, dict):
                raise ValueError(f"{name} must be a dict.")
        self._tag = tag
        self._attributes = dict(attributes or {})
        self._properties = dict(properties or {})
        self._src = src or {}
        self._children: list[_Any] = []
        self._parent: Element | None = None

    def get_attribute(self, name: str) -> str | None:
        return self._attributes.get(name)

    def set_attribute(self, name: str, value: str) -> None:
        """Set an attribute. Raises `ValueError` if `value` is not a string."""
        if not isinstance(value, str):
            raise ValueError("Attribute value must be a string")
        self._attributes[name] = value

    def get_property(self, name: str) -> _Any:
        return self._properties.get(name)

    def set_property(self, name: str, value: _Any) -> None:
        self._properties[name] = value

    def call(self, method: str, *args: _Any) -> _NoReturn:
        """Raise `errors.Error`: only a page could call a method of the element."""
        raise _errors.Error(
            f"The element's method {method} cannot be called here, because no Colab page is open. Remove the call."
        )

    def add_event_listener(self, name: str, callback: str | _Callable[..., _Any]) -> None:
        """Do nothing: no page is open in which an event could happen."""

    def remove_event_listener(self, name: str, callback: str | _Callable[..., _Any]) -> None:
        """Do nothing, as `add_event_listener` does."""

    def append_child(self, child: _Any) -> None:
        """Append an `Element`, a string of HTML, or an object that has HTML of its own."""
        if isinstance(child, Element):
            child.remove()
            child._parent = self
        self._children.append(child)

    def remove_child(self, child: _Any) -> None:
        """Remove a child. Raises `ValueError` if it is another element's."""
        if isinstance(child, Element):
            if child._parent is not self:
                raise ValueError("Child parent must match.")
            child._parent = None
        self._children = [each for each in self._children if each is not child]

    def remove(self) -> None:
        """Remove this element from its parent, if it has one."""
        if self._parent is not None:
            self._parent.remove_child(self)

    def _repr_html_(self) -> str:
        attributes = "".join(f' {name}="{_html.escape(value)}"' for name, value in self._attributes.items())
        children = "".join(map(_html_of, self._children))
        return f"{self._source()}<{self._tag}{attributes}>{children}</{self._tag}>"

    def _source(self) -> str:
        address = {kind: _html.escape(value) for kind, value in self._src.items()}
        if "script" in address:
            return f'<script src="{address["script"]}"></script>'
        if "module" in address:
            return f'<script type="module" src="{address["module"]}"></script>'
        return f'<link rel="import" href="{address["html"]}">' if "html" in address else ""


def create_resource(*arguments: _Any, **options: _Any) -> _NoReturn:
    """Raise `errors.Error`: only Colab's page could fetch the resource from the kernel."""
    raise _errors.Error(
        "A resource cannot be served here, because no Colab page is open to fetch it. "
        "Put its content into the HTML that the cell displays."
    )


def _html_of(child: _Any) -> str:
    own = getattr(child, "_repr_html_", None)
    return str(child if own is None else own())
