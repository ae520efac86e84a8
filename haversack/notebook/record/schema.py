"""Import nbformat without two seconds of work that notebooks do not need.

nbformat imports jsonschema, and jsonschema imports packages for formats of JSON Schema where they are installed;
JupyterLab brings them. `rfc3987_syntax`, for the format "iri", builds a grammar of internationalized addresses whenever
it is imported, which takes two seconds; `isoduration`, for the format "duration", takes 0.1 s. The schema of notebooks
has neither format. So both are left out while jsonschema is imported, in this process only. Modules of ours take
`nbformat` from here.
"""

from __future__ import annotations

import sys

_EXPENSIVE = ("rfc3987_syntax", "isoduration")

if "jsonschema" not in sys.modules:
    _left_out = [name for name in _EXPENSIVE if name not in sys.modules]
    sys.modules.update(dict.fromkeys(_left_out))  # type: ignore[arg-type]  # their import raises ImportError
    try:
        import jsonschema  # noqa: F401
    finally:
        for _name in _left_out:
            del sys.modules[_name]

import nbformat  # noqa: E402

__all__ = ["nbformat"]
