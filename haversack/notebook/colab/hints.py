"""Advice for errors that notebooks written for older libraries or other machines are known to raise.

Runs in the process of `haversack run`. One table maps a pattern of the error and a pattern of the cell's source to
advice. The exception is not changed: `Execution` appends the advice to its traceback in the notebook and to the
`CellFailed` error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from haversack.packages.table import provider_of


@dataclass(frozen=True)
class Hint:
    """Advice for a known error.

    Attributes:
        error: pattern that must be found in "Name: message" of the exception.
        advice: the advice, a format string for the named groups of `error` and, where one of them is `name`, a module,
            for `package`, its package.
        cell: pattern that must be found in the cell's source as well; by default any source.
    """

    error: re.Pattern[str]
    advice: str
    cell: re.Pattern[str] = re.compile("")


_TPU = "Colab's old TPU addresses are gone: write haversack.distribute(), or keras.distribution, to use every core."
_HINTS = (
    Hint(re.compile("COLAB_TPU_ADDR"), _TPU),
    Hint(re.compile(""), _TPU, re.compile(r"COLAB_TPU_ADDR|tf\.contrib\.tpu|tensorflow\.contrib")),
    Hint(re.compile(r"has no attribute 'contrib'|No module named 'tensorflow\.contrib"), _TPU),
    Hint(
        re.compile(r"The filename must end in `?\.weights\.h5`?.*?filepath=(?P<path>\S+?)(?:\.h5)?$", re.DOTALL),
        "Keras 3 saves weights only to names that end in .weights.h5: write save_weights('{path}.weights.h5').",
    ),
    Hint(
        re.compile(r"The filename must end in `?\.weights\.h5`?"),
        "Keras 3 saves weights only to names that end in .weights.h5: write save_weights('x.weights.h5').",
    ),
    Hint(
        re.compile(r"module 'tensorflow' has no attribute '(placeholder|Session|app|flags|global_\w+)'"),
        "TensorFlow 1's names are elsewhere now: write import tensorflow.compat.v1 as tf; tf.disable_v2_behavior().",
    ),
    Hint(
        re.compile(r"^StdinNotImplementedError"),
        "A job has no user to answer a prompt: set the value with --param or userdata.get().",
    ),
    Hint(
        re.compile(r"No such file or directory: '(?:/kaggle|\.\.)/input/(?P<path>[^/']+)/"),
        "Nothing is attached as /kaggle/input/{path}: give haversack run --input kaggle:OWNER/{path} or "
        "--input kaggle:c/{path}.",
    ),
    Hint(
        re.compile(r"^ExecutableNotFound: failed to execute .*?\b(?:dot|neato)\b"),
        "Colab and Kaggle have Graphviz's programs. Add a cell before it: !apt-get install -y graphviz",
    ),
    Hint(
        re.compile(r"^ModuleNotFoundError: No module named '(?P<name>[\w]+)"),
        "Add a cell before it: %pip install {package}",
    ),
)


def advice(source: str, error: str) -> str:
    """Return the advice of the first hint that applies to `error` ("Name: message") in `source`; "" if none does."""
    for hint in _HINTS:
        found = hint.error.search(error)
        if found and hint.cell.search(source):
            groups = found.groupdict()
            return hint.advice.format(**groups, package=_package(groups.get("name", "")))
    return ""


def _package(module: str) -> str:
    """The package of a module by the curated table. A name that is only guessed could be another's package."""
    provider = provider_of(module)
    return provider.requirement if provider and provider.requirement else "PACKAGE, by its name on PyPI"
