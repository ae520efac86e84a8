"""Which errors are put down to a library that has changed, and which date is advised. The errors are real ones."""

from __future__ import annotations

import traceback
import warnings

import pytest

from haversack.packages.drift import Drift

PACKAGES = {"numpy": "2.4.6", "pandas": "3.0.1", "scikit-learn": "1.9.1", "matplotlib": "3.11.2", "scipy": "1.17.1"}
FRAMES = "Traceback: File ~/env/lib/python3.11/site-packages/{}/core.py:5, in f()"


def raised(code: str) -> tuple[str, str]:
    """The "Name: message" and the traceback of the error that `code` raises here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(code, {})
    except (AttributeError, ImportError, TypeError, OSError) as error:
        return f"{type(error).__name__}: {error}", traceback.format_exc()
    pytest.fail(f"{code} raised nothing")


@pytest.mark.parametrize(
    ("code", "project", "month"),
    [
        ("import numpy as np; np.float", "numpy", "2022-11"),
        ("import numpy as np; np.float_", "numpy", "2024-05"),
        ("import numpy as np; np.in1d", "numpy", "2025-11"),
        ("from sklearn.datasets import load_boston", "scikit-learn", "2022-11"),
        ("from sklearn.metrics import plot_confusion_matrix", "scikit-learn", "2022-11"),
        ("import sklearn.linear_model as m; m.LinearRegression(normalize=True)", "scikit-learn", "2022-11"),
        ("import sklearn.preprocessing as p; p.OneHotEncoder(sparse=False)", "scikit-learn", "2023-12"),
        ("import matplotlib.style as s; s.use('seaborn-whitegrid')", "matplotlib", "2023-08"),
        ("import matplotlib.cm as cm; cm.get_cmap", "matplotlib", "2024-04"),
        ("from scipy.misc import face", "scipy", "2023-12"),
        ("from scipy.integrate import simps", "scipy", "2024-05"),
        ("from scipy.signal import gaussian", "scipy", "2024-03"),
    ],
)
def test_the_last_month_with_a_removed_name_is_advised_whatever_the_notebook_tells(
    code: str, project: str, month: str
) -> None:
    drift = Drift(PACKAGES, "/home/me/old nb.ipynb")
    assert drift.advice(*raised(code)) == (
        f"{project} {PACKAGES[project]} may have dropped what this cell uses since the notebook was written. "
        f"Versions of that time: haversack run 'old nb.ipynb' --as-of {month}"
    )


@pytest.mark.parametrize(
    ("error", "month"),
    [
        ("AttributeError: 'CountVectorizer' object has no attribute 'get_feature_names'", "2022-11"),
        ("AttributeError: 'DataFrame' object has no attribute 'append'", "2023-03"),
        ("AttributeError: 'Series' object has no attribute 'iteritems'", "2023-03"),
        ("AttributeError: 'DataFrame' object has no attribute 'applymap'", "2025-12"),
        ("AttributeError: 'Sequential' object has no attribute 'fit_generator'", "2023-10"),
        ("ModuleNotFoundError: No module named 'keras.utils.np_utils'", "2023-06"),
        ("ModuleNotFoundError: No module named 'tensorflow.keras.preprocessing.text'", "2023-10"),
        ("TypeError: NDFrame.fillna() got an unexpected keyword argument 'method'", "2025-12"),
    ],
)
def test_so_is_that_of_a_method(error: str, month: str) -> None:
    assert Drift({**PACKAGES, "keras": "3.12.0"}).advice(error, "").endswith(f" --as-of {month}")


@pytest.mark.parametrize(
    ("code", "project"),
    [
        ("import numpy; numpy.no_such_name", "numpy"),
        ("from scipy.stats import no_such_name", "scipy"),
        ("import matplotlib.no_such_module", "matplotlib"),
    ],
)
def test_for_another_name_it_is_the_notebooks_own_month(code: str, project: str) -> None:
    error = raised(code)
    assert Drift(PACKAGES, "nb.ipynb").advice(*error) == ""
    advice = Drift(PACKAGES, "nb.ipynb", written="2024-02").advice(*error)
    assert advice.startswith(f"{project} {PACKAGES[project]} may have dropped")
    assert advice.endswith(" --as-of 2024-02")


def test_a_month_without_packages_for_this_python_becomes_the_first_that_has_them() -> None:
    error = raised("import numpy; numpy.no_such_name")
    assert Drift(PACKAGES, written="2018-04").advice(*error).endswith(" --as-of 2023-06")
    boston = raised("from sklearn.datasets import load_boston")
    with_tensorflow = {**PACKAGES, "tensorflow": "2.20"}
    assert Drift(with_tensorflow).advice(*boston).endswith(" --as-of 2023-03")


@pytest.mark.parametrize("kind", ["TypeError", "ValueError"])
def test_what_a_library_refuses_is_its_change_and_other_errors_are_not(kind: str) -> None:
    drift = Drift(PACKAGES, written="2024-02")
    refused = f"{kind}: f() got an unexpected keyword argument 'squared'"
    assert "scikit-learn" in drift.advice(refused, FRAMES.format("sklearn"))
    assert drift.advice(refused, "Cell In[1], line 1") == ""
    assert drift.advice(f"{kind}: operands could not be broadcast together", FRAMES.format("numpy")) == ""


@pytest.mark.parametrize(
    "error",
    [
        "AttributeError: module 'tensorflow' has no attribute 'placeholder'",
        "ModuleNotFoundError: No module named 'sklearn.externals'",
        "ImportError: cannot import name 'imread' from 'scipy.misc' (unknown location)",
        "ModuleNotFoundError: No module named 'numpi'",
        "ValueError: Argument(s) not recognized: {'lr': 0.001}",
        "AttributeError: module 'helpers' has no attribute 'f'",
        "NameError: name 'np' is not defined",
    ],
)
def test_nothing_is_advised_where_no_date_helps(error: str) -> None:
    packages = {**PACKAGES, "tensorflow": "2.20"}
    assert Drift(packages, written="2022-01").advice(error, FRAMES.format("numpy")) == ""


def test_nothing_is_advised_where_the_job_has_no_later_versions() -> None:
    error = raised("import numpy as np; np.float")
    assert Drift(PACKAGES, as_of="2022-11-30").advice(*error) == ""
    assert Drift(PACKAGES, as_of="2024-05-31").advice(*error) != ""
    assert Drift({}).advice(*error) == ""
