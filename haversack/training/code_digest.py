"""A digest of what a function computes: bytecode, constants, closure, and the user's own code that it calls.

A run's checkpoint names no code, yet the code of a custom layer or loss decides what is trained. The digest tells
whether it has changed between two sessions. It has no address, file name or line number, so the same code has the same
digest in every process, and moving or commenting a function changes nothing.

Followed are the user's own functions and classes that the function names, also as `self.method`, and the plain values
(numbers, strings, tuples of them) of the globals and closure variables that it reads. Not followed are libraries, whose
functions count by name, values that a program changes while it runs (lists, dicts, what the function assigns), and
variables that hold an absolute path.
Bytecode belongs to one minor version of Python, so digests of different versions must not be compared.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LIBRARY_FOLDERS = {"site-packages", "dist-packages"}
_LIBRARY_PREFIXES = ("<frozen", f"{sysconfig.get_path('stdlib')}/", f"{Path(__file__).parents[1]}/")
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))
# Other flags depend on where the function stands.
_FLAGS = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_GENERATOR | inspect.CO_COROUTINE
_STORES = {"STORE_GLOBAL", "STORE_DEREF", "STORE_NAME"}
_LOADS_OF_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME"}


def of(function: Callable[..., Any], owner: type | None = None) -> str:
    """Return the digest of `function` as 24 hexadecimal digits.

    `owner` is the class whose methods the function may call as attributes of its first argument; None for none.
    """
    hasher = hashlib.blake2b(digest_size=12)
    for part in _parts(function, owner, set()):
        hasher.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return hasher.hexdigest()


def is_own(value: Any) -> bool:
    """Whether the user wrote this function, method, partial or class, rather than a library or Python itself."""
    if isinstance(value, functools.partial):
        return is_own(value.func)
    if isinstance(value, types.MethodType):
        return is_own(value.__func__)
    if isinstance(value, types.FunctionType):
        return not _is_library(value.__code__.co_filename)
    if isinstance(value, type):
        module = sys.modules.get(value.__module__)
        file = getattr(module, "__file__", None)
        return value.__module__ == "__main__" or (file is not None and not _is_library(file))
    return False


def _is_library(file: str) -> bool:
    return file.startswith(_LIBRARY_PREFIXES) or not _LIBRARY_FOLDERS.isdisjoint(Path(file).parts)


def _parts(value: Any, owner: type | None, seen: set[int]) -> Iterator[str]:
    """Yield what is hashed of a value, as text; `seen` has the ids of the code that was yielded before."""
    if isinstance(value, functools.partial):
        for one in (value.func, *value.args, *value.keywords, *value.keywords.values()):
            yield from _parts(one, owner, seen)
    elif isinstance(value, types.MethodType):
        yield from _parts(value.__func__, type(value.__self__), seen)
    elif isinstance(value, (staticmethod, classmethod)):
        yield from _parts(value.__func__, owner, seen)
    elif isinstance(value, property):
        yield from _parts(value.fget, owner, seen)
    elif isinstance(value, (types.FunctionType, type)) and is_own(value):
        if id(value) not in seen:
            seen.add(id(value))
            yield from _class_parts(value, seen) if isinstance(value, type) else _function_parts(value, owner, seen)
    elif isinstance(value, (tuple, frozenset)):
        texts = [" ".join(_parts(one, owner, seen)) for one in value]
        yield f"{type(value).__name__} {sorted(texts) if isinstance(value, frozenset) else texts}"
    elif isinstance(value, _PLAIN):
        yield repr(value)
    elif callable(getattr(value, "__wrapped__", None)):
        yield from _parts(value.__wrapped__, owner, seen)  # jax.jit(function), for example
    else:
        named = value if hasattr(value, "__qualname__") else type(value)
        yield f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}"


def _class_parts(kind: type, seen: set[int]) -> Iterator[str]:
    for name, member in sorted(vars(kind).items()):
        if isinstance(member, (types.FunctionType, staticmethod, classmethod, property)):
            yield name
            yield from _parts(member, kind, seen)


def _function_parts(function: types.FunctionType, owner: type | None, seen: set[int]) -> Iterator[str]:
    code = function.__code__
    yield from _code_parts(code)
    for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield from _parts(default, owner, seen)
    names = _names(code)
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if name not in names.assigned and name != "__class__":
            yield name
            yield from _variable_parts(_content(cell), owner, seen)
    for name in sorted(names.globals - names.assigned):
        if name in function.__globals__:
            yield name
            yield from _variable_parts(function.__globals__[name], None, seen)
    for name in sorted(names.attributes) if owner is not None else ():
        yield from _parts(_own_member(owner, name), owner, seen)


def _variable_parts(value: Any, owner: type | None, seen: set[int]) -> Iterator[str]:
    """Like `_parts` for a variable's value; an absolute path is left out, since it may be a temporary folder's."""
    if not (isinstance(value, str) and value.startswith("/")):
        yield from _parts(value, owner, seen)


def _own_member(owner: type | None, name: str) -> Any:
    """The method or property `name` of `owner` if the user wrote it, else None."""
    member = inspect.getattr_static(owner, name, None)
    function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
    return member if isinstance(function, types.FunctionType) and is_own(function) else None


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None  # a variable that is not assigned yet


def _code_parts(code: types.CodeType) -> Iterator[str]:
    """Yield the instructions of `code` and of the functions in it, with their constants and names.

    The raw bytes would not do: they number the constants, of which a docstring is one.
    """
    yield f"{code.co_argcount} {code.co_kwonlyargcount} {code.co_flags & _FLAGS} {code.co_exceptiontable.hex()}"
    for instruction in dis.get_instructions(code):
        yield instruction.opname
        if instruction.opcode not in dis.hasconst:
            yield str(instruction.arg if instruction.opcode in dis.haslocal else instruction.argrepr or instruction.arg)
        elif isinstance(instruction.argval, types.CodeType):
            yield from _code_parts(instruction.argval)
        else:
            yield from _parts(instruction.argval, None, set())


@dataclass
class _Names:
    """The names in a piece of code and in the functions that it defines."""

    globals: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    assigned: set[str] = field(default_factory=set)


def _names(code: types.CodeType, found: _Names | None = None) -> _Names:
    """The globals that `code` reads, the attributes that it names, and the variables beyond its own that it assigns."""
    found = found or _Names()
    for instruction in dis.get_instructions(code):
        if instruction.opname in _STORES:
            found.assigned.add(instruction.argval)
        elif instruction.opname in _LOADS_OF_GLOBALS:
            found.globals.add(instruction.argval)
    found.attributes.update(set(code.co_names) - found.globals)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _names(constant, found)
    return found
