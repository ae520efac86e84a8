"""`google.colab.syntax`: marks that tell Colab's editor a string's language. They return the string."""

from __future__ import annotations

__all__ = ["css", "html", "javascript", "sql"]


def html(string: str) -> str:
    return string


def javascript(string: str) -> str:
    return string


def sql(string: str) -> str:
    return string


def css(string: str) -> str:
    return string
