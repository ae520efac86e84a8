"""From a notebook to its packages: which list counts, what the table adds, and what is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.errors import InputError
from haversack.packages.requirements import Requirements, requirements_of

BLOCK = '# /// script\n# requires-python = ">=3.12"\n# dependencies = [\n#   "pandas<3",\n#   "requests",\n# ]\n# ///'
LOCK = """\
version = 1
requires-python = ">=3.11"
[manifest]
requirements = [
    { name = "pandas", specifier = "<3" },
    { name = "jax", extras = ["cuda12"] },
    { name = "thing", git = "https://example.org/thing" },
]
[[package]]
name = "pandas"
version = "2.3.1"
"""


def of(*cells: str, folder: Path | None = None, **metadata: object) -> Requirements:
    return requirements_of(cells, metadata, folder)


def texts(found: Requirements) -> list[str]:
    return [one.text for one in found.requirements]


def states(found: Requirements) -> dict[str, str]:
    return {module.name: module.state for module in found.modules}


def problem(found: Requirements) -> str:
    with pytest.raises(InputError) as caught:
        found.check()
    return str(caught.value)


def test_imports_become_the_projects_of_the_table() -> None:
    found = of("import numpy as np\nfrom sklearn.svm import SVC\nimport sklearn.datasets", "import cv2, yaml, numpy")
    assert texts(found) == ["numpy", "scikit-learn", "opencv-python-headless", "PyYAML"]
    assert found.requirements[0].why == "import numpy (cells 1, 2)"
    assert found.requirements[1].project == "scikit-learn"
    found.check()


def test_an_optional_import_is_installed_too() -> None:
    assert texts(of("try:\n    import seaborn\nexcept ImportError:\n    pass")) == ["seaborn"]


def test_what_its_own_pip_cells_install_is_left_to_them() -> None:
    found = of("!pip install -q seaborn==0.13", "import seaborn, pandas")
    assert texts(found) == ["pandas"]
    assert states(found) == {"seaborn": "pip cell", "pandas": "install"}
    assert found.installations[0].requirement == "seaborn==0.13"


def test_another_project_that_provides_the_module_counts_as_installed() -> None:
    assert texts(of("!pip install opencv-python", "import cv2")) == []


def test_a_dead_project_of_the_modules_name_does_not_count_as_installed() -> None:
    assert texts(of("!pip install sklearn google", "import sklearn\nfrom google.protobuf import text_format")) == [
        "scikit-learn",
        "protobuf",
    ]


def test_an_unknown_module_of_a_shared_package_is_named_in_full() -> None:
    assert "google.cloud.unheard (cell 1)" in problem(of("from google.cloud import unheard"))


def test_an_installation_that_may_not_happen_does_not_count() -> None:
    assert texts(of("if x:\n    !pip install seaborn", "import seaborn")) == ["seaborn"]


def test_a_pep_723_block_is_the_whole_list() -> None:
    found = of(BLOCK, "import pandas, seaborn")
    assert texts(found) == ["pandas<3", "requests"]
    assert found.requirements[0].why == "PEP 723 block in cell 1"
    assert found.python == ">=3.12"
    assert 'requires-python = ">=3.12"' in found.block
    assert states(found) == {"pandas": "listed", "seaborn": "maybe"}
    found.check()


def test_a_block_without_dependencies_gives_the_python_version_only() -> None:
    found = of('# /// script\n# requires-python = "==3.12.*"\n# ///\nimport pandas')
    assert (texts(found), found.python) == (["pandas"], "==3.12.*")


def test_an_empty_list_in_a_block_is_a_list() -> None:
    assert texts(of("# /// script\n# dependencies = []\n# ///\nimport pandas")) == []


def test_a_block_takes_precedence_over_requirements_txt(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("polars\n")
    assert texts(of(BLOCK, folder=tmp_path)) == ["pandas<3", "requests"]


def test_a_lock_is_kept_and_names_what_is_required() -> None:
    found = of("import seaborn", **{"uv.lock": LOCK})
    assert texts(found) == ["pandas<3", "jax[cuda12]", "thing @ git+https://example.org/thing"]
    assert (found.lock, found.python) == (LOCK, ">=3.11")


def test_a_block_and_its_lock_go_together() -> None:
    found = of(BLOCK, **{"uv.lock": LOCK})
    assert (texts(found), found.lock) == (["pandas<3", "requests"], LOCK)


def test_requirements_txt_beside_the_notebook_comes_first_and_imports_add_to_it(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(
        "# ours\n--extra-index-url https://example.org/simple\nscikit-learn==1.5  # pinned\n"
        "-r more.txt\n-c pins.txt\n-e .\n--find-links=./wheels\n"
    )
    (tmp_path / "more.txt").write_text("-r requirements.txt\nopencv-python\nnumpy \\\n  <2\n")
    found = of("import sklearn, cv2, seaborn", folder=tmp_path)
    assert texts(found) == ["scikit-learn==1.5", "opencv-python", "numpy <2", str(tmp_path), "seaborn"]
    assert found.options == (
        "--extra-index-url https://example.org/simple",
        f"-c {tmp_path / 'pins.txt'}",
        f"-f {tmp_path / 'wheels'}",
    )
    assert found.requirements[0].why == "requirements.txt"


def test_requirements_txt_as_powershell_writes_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes("polars==1.35\r\n".encode("utf-16"))
    assert texts(of(folder=tmp_path)) == ["polars==1.35"]


@pytest.mark.parametrize(
    ("cells", "metadata", "said"),
    [
        (["# /// script\n# dependencies = [\n# ///"], {}, "The PEP 723 block in cell 1 is not TOML"),
        (['# /// script\n# dependencies = "pandas"\n# ///'], {}, "not a list of strings"),
        (["# /// script\n# requires-python = 3\n# ///"], {}, "`requires-python` that is not a string"),
        ([BLOCK, "x = 1", BLOCK], {}, "2 PEP 723 blocks, in cell 1 and cell 3. Keep one"),
        ([], {"uv.lock": "["}, "The uv.lock in the notebook's metadata is not TOML"),
        ([], {"uv.lock": {"version": 1}}, "is not text"),
    ],
)
def test_a_list_that_cannot_be_read_is_an_error(cells: list[str], metadata: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as caught:
        requirements_of(cells, metadata)
    assert said in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xff\xff", b"-r missing.txt\n"])
def test_a_requirements_file_that_cannot_be_read_is_an_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"\.txt cannot be read"):
        of(folder=tmp_path)


def test_all_unknown_imports_are_named_at_once() -> None:
    found = of("import pandas, secretsauce", "from acme.tools import x\nimport secretsauce.more")
    assert problem(found) == (
        "The table of packages does not provide 2 imports of this notebook: secretsauce (cells 1, 2), acme (cell 2). "
        "Install the packages of secretsauce, acme in a cell before, by the name on PyPI: %pip install PACKAGE …"
    )
    assert texts(found) == ["pandas"]


def test_one_unknown_import_is_named() -> None:
    assert problem(of("import secretsauce")) == (
        "The table of packages does not provide an import of this notebook: secretsauce (cell 1). "
        "Install the package of secretsauce in a cell before, by the name on PyPI: %pip install PACKAGE …"
    )


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("osgeo", "osgeo (cell 1, Ubuntu's package python3-gdal, which Colab installs with apt)"),
        ("kaggle_gcp", "kaggle_gcp (cell 1, part of Kaggle's own notebooks only)"),
    ],
)
def test_what_pip_cannot_install_says_why(module: str, said: str) -> None:
    message = problem(of(f"import {module}"))
    assert said in message
    assert f"Import {module} in a `try`" in message
    assert "%pip" not in message


@pytest.mark.parametrize(
    "cells",
    [
        ["try:\n    import secretsauce\nexcept ImportError:\n    pass"],
        ["!git clone https://example.org/secretsauce", "import secretsauce"],
        ["!pip install secretsauce", "import secretsauce"],
        ["!pip install secret-sauce-project", "import secretsauce"],
        ["!pip install -r requirements.txt", "import secretsauce"],
        ["if x:\n    !pip install {name}", "import secretsauce"],
        ["import ray, secretsauce"],
        ["%%writefile secretsauce.py\nx = 1", "import secretsauce"],
        ["import google", "from google import *"],
    ],
)
def test_an_import_that_something_in_the_notebook_may_bring_is_no_error(cells: list[str]) -> None:
    of(*cells).check()


def test_an_installed_package_of_colab_brings_no_unknown_module() -> None:
    assert "secretsauce" in problem(of("!pip install -q transformers", "import secretsauce"))


def test_local_modules_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "helpers.py").touch()
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "train.py").touch()
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "one.py").touch()
    found = of("import helpers, keras, scripts.one, torch", folder=tmp_path)
    assert states(found) == {"helpers": "local", "keras": "install", "scripts": "local", "torch": "install"}
    found.check()


def test_what_haversack_and_the_kernel_provide_is_not_installed() -> None:
    found = of("from google.colab import drive\nimport haversack, IPython.display")
    assert states(found) == {"google.colab": "haversack", "haversack": "haversack", "IPython": "kernel"}
    assert texts(found) == []


@pytest.mark.parametrize(
    ("cell", "project"),
    [
        ("import pandas as pd\npd.Series([1]).plot.bar()", "matplotlib"),
        ("import pandas as pd\npd.read_excel('a.xlsx')", "openpyxl"),
        ("import pandas as pd\npd.read_parquet('a.parquet')", "pyarrow"),
        ("import pandas as pd\nframe.style.highlight_max()", "Jinja2"),
        ("import keras, jax\nkeras.utils.plot_model(model)", "pydot"),
        ("import tensorflow as tf\ntf.keras.utils.plot_model(model)", "pydot"),
        ("from tqdm.notebook import tqdm", "ipywidgets"),
        ('from transformers import AutoTokenizer\ntokenizer(x, return_tensors="pt")', "torch"),
        ("from transformers import Trainer\nt = Trainer(model)", "accelerate"),
        ("import plotly.express as px\npx.bar(x).show()", "nbformat"),
        ("from xgboost import XGBClassifier", "scikit-learn"),
        ("import keras", "jax"),
        ("import os\nos.environ['KERAS_BACKEND'] = 'torch'\nimport keras", "torch"),
        ("%env KERAS_BACKEND=tensorflow\nimport keras", "tensorflow"),
    ],
)
def test_what_is_needed_without_an_import_is_added(cell: str, project: str) -> None:
    assert project in texts(of(cell))


@pytest.mark.parametrize(
    ("cells", "projects"),
    [
        (["import pandas as pd\npd.read_csv('a.csv')"], ["pandas"]),
        (["import pandas as pd\n# pd.read_excel('a.xlsx')"], ["pandas"]),
        (["import pandas, matplotlib.pyplot as plt\nplt.style.use('x')"], ["pandas", "matplotlib"]),
        (["import keras, tensorflow"], ["keras", "tensorflow"]),
        (["import keras\nimport torch"], ["keras", "torch"]),
        (["!pip install openpyxl", "import pandas as pd\npd.read_excel('a')"], ["pandas"]),
        (["!pip install tensorflow-cpu", "%env KERAS_BACKEND=tensorflow\nimport keras"], ["keras"]),
        (["%%writefile pandas.py\nx = 1", "import pandas\npandas.read_excel('a')"], []),
        ([BLOCK, "import pandas\npandas.read_excel('a')"], ["pandas<3", "requests"]),
    ],
)
def test_nothing_is_added_that_is_not_needed(cells: list[str], projects: list[str]) -> None:
    assert texts(of(*cells)) == projects


def test_one_message_has_the_unknown_and_what_pip_cannot_install() -> None:
    message = problem(of("import secretsauce, osgeo"))
    assert "Install the package of secretsauce in a cell" in message
    assert "Import osgeo in a `try`" in message
