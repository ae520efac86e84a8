"""A notebook that only imports what Colab has preinstalled: the packages come by themselves."""

from __future__ import annotations

import os

import pytest

from tests.notebook import notebooks
from tests.notebook.conftest import Run

pytest.importorskip("haversack.packages.store", reason="this haversack installs no packages")

CELLS = (
    "import numpy as np, pandas as pd, seaborn as sns, matplotlib.pyplot as plt\n"
    "from sklearn.ensemble import RandomForestClassifier\n"
    "import cv2, yaml, tqdm, plotly.express as px",
    "df = pd.DataFrame({'a': np.arange(5), 'b': np.arange(5) ** 2})\n"
    "print(df.corr().iloc[0, 1].round(3), cv2.__version__ > '4', yaml.safe_load('a: 1'))\n"
    "sns.heatmap(df); plt.show()",
)


def test_what_it_imports_is_installed_and_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HAVERSACK_INSTALL", raising=False)
    report = run(*CELLS)
    assert report.status == "done", report.error
    assert notebooks.text(report.output, 1).startswith("0.958 True {'a': 1}\n")
    said = " ".join(report.notices)
    for package in ("pandas", "seaborn", "scikit-learn", "opencv-python-headless", "plotly"):
        assert package in said


def test_what_nobody_has_is_named_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HAVERSACK_INSTALL", raising=False)
    assert "HAVERSACK_INSTALL" not in os.environ
    report = run("import no_such_module_of_anyone, nor_this_one\nprint(1)")
    said = " ".join([*report.notices, report.error or ""])
    assert "no_such_module_of_anyone" in said
    assert "nor_this_one" in said
