"""A notebook that only imports what Colab has preinstalled: the packages come by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.errors import InputError
from tests.notebook import notebooks
from tests.notebook.conftest import Run

CELLS = (
    "import numpy as np, pandas as pd, seaborn as sns, matplotlib.pyplot as plt\n"
    "from sklearn.ensemble import RandomForestClassifier\n"
    "import cv2, yaml, tqdm, plotly.express as px",
    "df = pd.DataFrame({'a': np.arange(5), 'b': np.arange(5) ** 2})\n"
    "print(df.corr().iloc[0, 1].round(3), cv2.__version__ > '4', yaml.safe_load('a: 1'))\n"
    "sns.heatmap(df); plt.show()",
)


def test_what_it_imports_is_installed_and_said(run: Run, uv_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HAVERSACK_INSTALL", raising=False)
    report = run(*CELLS)
    assert report.status == "done", report.error
    assert notebooks.text(report.output, 1).startswith("0.959 True {'a': 1}\n")
    assert report.environment is not None
    assert {"pandas", "seaborn", "scikit-learn", "opencv-python-headless", "plotly"} < {
        *report.environment["requirements"]
    }


def test_what_nobody_has_is_named_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HAVERSACK_INSTALL", raising=False)
    with pytest.raises(InputError, match=r"2 imports of this notebook: no_such_module_of_anyone .*, nor_this_one "):
        run("import no_such_module_of_anyone, nor_this_one\nprint(1)")
