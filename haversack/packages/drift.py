"""Whether an error comes of a library that has changed since the notebook was written, and which `--as-of` may help.

    drift = Drift({"numpy": "2.4.6"}, "old.ipynb", written="2022-03")
    drift.advice("AttributeError: module 'numpy' has no attribute 'float'", traceback)

Without `--as-of` a notebook gets today's versions, and libraries drop names. Two ways lead to an advice: the error is
one of `_REMOVALS`, for which the last month with the name is known; or it says that a module of the environment lacks
something, and the notebook shows when it was last executed. It is a guess, and is worded as one. Nothing is advised
where it cannot help: haversack runs on Python 3.11 and later, and most libraries have no wheels for that before
`OLDEST`. What was removed earlier, such as TensorFlow 1's `tf.placeholder`, has other advice (`colab.hints`) or none.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from haversack.packages.table import normalized, provider_of

OLDEST = "2023-06"
"""The month by which the usual libraries had wheels for Python 3.11, TensorFlow and PyTorch among them."""
_TENSORFLOW = "2023-03"  # the first month with a TensorFlow for Python 3.11


def _name_of(module: str, names: str) -> str:
    """Return the pattern of both errors for one of `names`, separated by "|", that `module` lacks."""
    quoted = re.escape(module)
    return rf"module '{quoted}' has no attribute '({names})'|cannot import name '({names})' from '{quoted}'"


# Project, last month in which the project still had the name, pattern of the error as "Name: message".
_REMOVALS = (
    ("numpy", "2022-11", _name_of("numpy", "float|int|bool|object|str|complex|long|unicode")),
    ("numpy", "2024-05", r"`np\.\w+` was removed in the NumPy 2\.0 release"),
    ("numpy", "2025-11", _name_of("numpy", "trapz|in1d")),
    ("pandas", "2023-03", r"'(DataFrame|Series)' object has no attribute '(append|iteritems|mad|lookup|slice_shift)'"),
    ("pandas", "2025-12", r"'DataFrame' object has no attribute 'applymap'"),
    ("pandas", "2025-12", r"\.fillna\(\) got an unexpected keyword argument 'method'"),
    ("scikit-learn", "2022-11", rf"`load_boston` has been removed|{_name_of('sklearn.datasets', 'load_boston')}"),
    ("scikit-learn", "2022-11", _name_of("sklearn.metrics", r"plot_\w+")),
    ("scikit-learn", "2022-11", r"\w(Vectorizer|Encoder)' object has no attribute 'get_feature_names'"),
    ("scikit-learn", "2022-11", r"^TypeError: \w+\.__init__\(\) got an unexpected keyword argument 'normalize'"),
    ("scikit-learn", "2023-12", r"OneHotEncoder\.__init__\(\) got an unexpected keyword argument 'sparse'"),
    ("matplotlib", "2023-08", r"'seaborn(-[\w-]+)?' is not a valid package style"),
    ("matplotlib", "2024-04", _name_of("matplotlib.cm", "get_cmap")),
    ("scipy", "2023-12", _name_of("scipy.misc", "face|ascent|electrocardiogram|derivative")),
    ("scipy", "2024-03", _name_of("scipy.signal", "gaussian|hann|hamming|blackman|kaiser")),
    ("scipy", "2024-05", _name_of("scipy.integrate", "simps|trapz|cumtrapz")),
    ("keras", "2023-10", r"has no attribute '(fit|predict|evaluate)_generator'"),
    ("keras", "2023-10", r"No module named '(tensorflow\.)?keras\.preprocessing\.(text|image)"),
    ("keras", "2023-06", r"No module named '(tensorflow\.)?keras\.utils\.np_utils"),
)
# What was removed before Python 3.11 came, so that no --as-of brings it back: Keras 2.11 to 2.15 ignore `lr` with a
# warning, and train with another learning rate.
_GONE = re.compile(
    r"No module named '(tensorflow\.(contrib|examples|python)|sklearn\.(externals|cross_validation|grid_search))"
    r"|module '(tensorflow|keras\.backend)' has no attribute"
    r"|(import name|no attribute) '(imread|imresize|imsave|imrotate|toimage)'.*scipy\.misc"
    r"|Argument\(s\) not recognized: \{'(lr|decay)'"
    r"|module 'scipy\.misc' has no attribute '(imread|imresize|imsave|imrotate|toimage)'"
)
# How an error says that a module lacks something.
_LACKS = re.compile(
    r"^AttributeError: (?:partially initialized )?module '(?P<attribute>[\w.]+)' has no attribute"
    r"|^ImportError: cannot import name '\w+' from '(?P<name>[\w.]+)'"
    r"|^ModuleNotFoundError: No module named '(?P<module>\w+\.[\w.]+)'"
)
# How a library says that it no longer takes something; which library it is, the traceback tells.
_REFUSES = re.compile(
    r"^(AttributeError|ImportError|TypeError|ValueError|OSError): .*"
    r"(unexpected keyword argument|(?:has been|was) removed|no longer|not recognized|is not a valid)",
    re.DOTALL,
)
_LIBRARY = re.compile(r"(?:site|dist)-packages/(\w+)(?:/|\.py)")


@dataclass(frozen=True)
class Drift:
    """The libraries of a job's environment, and how old its notebook is.

    Attributes:
        packages: the normalized name of each locked project → its version.
        notebook: the notebook's path, for the command.
        written: the month in which the notebook was last executed, such as "2023-09", or a later one; "" if unknown.
        as_of: the day that limits the job's versions already; "" for none.
    """

    packages: Mapping[str, str]
    notebook: str = ""
    written: str = ""
    as_of: str = ""

    def advice(self, error: str, traceback: str) -> str:
        """Return one sentence with the library, its version and the command; "" if nothing points to a change.

        Args:
            error: "Name: message" of the exception.
            traceback: its traceback, without colours.
        """
        if _GONE.search(error):
            return ""
        project, month = self._removal(error) or self._lacking(error, traceback)
        if not month or (self.as_of and self.as_of[:7] <= month):
            return ""
        return (
            f"{project} {self.packages[project]} may have dropped what this cell uses since the notebook was written. "
            f"Versions of that time: haversack run {shlex.quote(Path(self.notebook).name)} --as-of {month}"
        )

    def _removal(self, error: str) -> tuple[str, str] | None:
        """Return the project and the last month of a name that is known to be removed."""
        for project, month, pattern in _REMOVALS:
            if project in self.packages and re.search(pattern, error):
                return project, max(month, _TENSORFLOW) if "tensorflow" in self.packages else month
        return None

    def _lacking(self, error: str, traceback: str) -> tuple[str, str]:
        """Return the project that lacks something by its error, and the notebook's month; ("", "") if there is none."""
        found = _LACKS.search(error)
        module = next((group for group in found.groups() if group), "") if found else ""
        if not found and _REFUSES.search(error):
            module = (_LIBRARY.findall(traceback) or [""])[-1]
        project = self._project(module)
        return (project, max(self.written, OLDEST)) if project and self.written else ("", "")

    def _project(self, module: str) -> str:
        """The locked project that provides `module`; "" if none does."""
        provider = provider_of(module)
        projects = {normalized(module.partition(".")[0]), *(provider.projects if provider else ())}
        return next((name for name in sorted(projects) if name in self.packages), "")
