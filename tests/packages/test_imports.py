"""What is found in cells: imports, what pip cells install, and modules of the notebook's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.packages import imports
from haversack.packages.imports import Import, Installation


def imported(*cells: str) -> list[tuple[str, bool]]:
    return [(one.module, one.required) for one in imports.needs(cells).imports]


def installed(*cells: str) -> list[str]:
    return [one.requirement for one in imports.needs(cells).installations]


def test_imports_are_found_with_their_cells() -> None:
    found = imports.needs(["import numpy as np, cv2", "from matplotlib import pyplot as plt"])
    assert found.imports == [Import("numpy", 1, True), Import("cv2", 1, True), Import("matplotlib", 2, True)]


@pytest.mark.parametrize(
    "line", ["import os, sys", "from __future__ import annotations", "import imp", "from . import x"]
)
def test_the_standard_library_and_relative_imports_are_left_out(line: str) -> None:
    assert imported(line) == []


def test_distutils_is_no_longer_part_of_python() -> None:
    assert imported("from distutils.version import LooseVersion") == [("distutils.version", True)]


@pytest.mark.parametrize(
    "cell",
    [
        "try:\n    import cupy\nexcept ImportError:\n    cupy = None",
        "try:\n    import cupy\nexcept (ValueError, ModuleNotFoundError):\n    pass",
        "try:\n    import cupy\nexcept:\n    pass",
        "import contextlib\nwith contextlib.suppress(ImportError):\n    import cupy",
        "if GPU:\n    import cupy",
        "if x:\n    pass\nelse:\n    import cupy",
        "def f():\n    import cupy",
        "async def f():\n    import cupy",
        "match x:\n    case 1:\n        import cupy",
        "%load_ext cupy",
        "%%writefile other.py\nimport cupy",
        "print 'Python 2'\nimport cupy",
    ],
)
def test_an_import_that_may_not_run_is_optional(cell: str) -> None:
    assert imported(cell) == [("cupy", False)]


@pytest.mark.parametrize(
    "cell",
    [
        "for i in range(3):\n    import cupy",
        "with open('x') as f:\n    import cupy",
        "if __name__ == '__main__':\n    import cupy",
        "try:\n    import cupy\nexcept ValueError:\n    pass",
        "try:\n    pass\nfinally:\n    import cupy",
        "%%time\nimport cupy",
        "\n%%capture out\n%%time\nimport cupy",
        "%time import cupy",
        "import importlib\nm = importlib.import_module('cupy')",
        "x = 1; import cupy\nx?",
        "files = !ls\nimport cupy",
        "print('\\d')\nimport cupy",
        "await something\nimport cupy",
    ],
)
def test_an_import_that_runs_with_its_cell_is_required(cell: str) -> None:
    assert imported(cell) == [("cupy", True)]


@pytest.mark.parametrize(
    "cell",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import cupy",
        "%%javascript\nimport cupy",
        "%%script false --no-raise-error\nimport cupy",
        "%load_ext autoreload",
        "# import cupy",
        "'''\nimport cupy\n'''",
    ],
)
def test_what_python_does_not_import_is_not_found(cell: str) -> None:
    assert imported(cell) == []


def test_a_module_of_a_shared_package_is_named_in_full() -> None:
    assert imported("from google.cloud import storage, bigquery", "from google.colab import drive") == [
        ("google.cloud.storage", True),
        ("google.cloud.bigquery", True),
        ("google.colab", True),
    ]


def test_a_magic_that_needs_a_package_is_an_import() -> None:
    assert imported("%matplotlib inline") == [("matplotlib", False)]


@pytest.mark.parametrize(
    ("cell", "requirements"),
    [
        ("!pip install -q torch==2.1 'numpy<2'", ["torch==2.1", "numpy<2"]),
        ("!pip3 install torch", ["torch"]),
        ("%pip install torch", ["torch"]),
        ("!python -m pip install --upgrade torch", ["torch"]),
        ("import sys\n!{sys.executable} -m pip install torch", ["torch"]),
        ("!uv pip install torch", ["torch"]),
        ("%%bash\nset -e\npip install \\\n  torch", ["torch"]),
        ("%%capture\n!pip install torch", ["torch"]),
        ("!apt-get update && pip install torch; echo done", ["torch"]),
        ("!pip install torch --index-url https://example.org/simple -f https://example.org/whl", ["torch"]),
        ("!pip install torch > /dev/null 2>&1", ["torch"]),
        ("!pip install torch # the CPU build", ["torch"]),
        ("!pip install 'torch ; python_version < \"3.13\"'", ['torch ; python_version < "3.13"']),
        ("!pip install git+https://github.com/someone/thing.git", ["git+https://github.com/someone/thing.git"]),
        ("!pip install -e ./thing", ["./thing"]),
        ("import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'pip', 'install', 'torch'])", ["torch"]),
        ("import subprocess\nsubprocess.check_call('pip install torch', shell=True)", ["torch"]),
        ("import os\nos.system('pip install torch')", ["torch"]),
        ("!pip install -r requirements.txt", ["-r requirements.txt"]),
        ("!pip list", []),
        ("!conda install torch", []),
        ("# !pip install torch", []),
    ],
)
def test_what_pip_cells_install(cell: str, requirements: list[str]) -> None:
    assert installed(cell) == requirements


def test_a_requirements_file_that_a_cell_writes_is_read() -> None:
    assert installed("%%writefile needed.txt\ntorch  # CPU\n\nnumpy<2", "!pip install -r needed.txt") == [
        "torch",
        "numpy<2",
    ]


@pytest.mark.parametrize(
    "cell", ["if x:\n    !pip install torch", "def f():\n    !pip install torch", "!pip install --target=lib torch"]
)
def test_an_installation_that_may_not_happen_is_uncertain(cell: str) -> None:
    assert imports.needs([cell]).installations == [Installation("torch", 1, False)]


def test_modules_that_the_notebook_writes_or_that_lie_beside_it_are_local(tmp_path: Path) -> None:
    (tmp_path / "helpers.py").touch()
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "one.py").touch()
    found = imports.needs(["%%writefile lib/model.py\nx = 1"], tmp_path)
    assert found.local == {"helpers", "package", "lib", "model"}
    assert found.folders == {"scripts"}


@pytest.mark.parametrize(
    "cell",
    [
        "!git clone https://github.com/someone/thing",
        "!wget https://example.org/helpers.py",
        "import sys\nsys.path.append('/content/drive/MyDrive')",
        "import os\nos.chdir('/content/drive/MyDrive')",
        "%cd /content/drive/MyDrive",
        "from google.colab import files\nfiles.upload()",
    ],
)
def test_cells_that_bring_code_are_known(cell: str) -> None:
    assert imports.needs(["x = 1", cell]).code_cells == [2]


def test_cells_are_counted_as_a_job_counts_them() -> None:
    cells = [
        {"cell_type": "markdown", "source": "# Title"},
        {"cell_type": "code", "source": " \n"},
        {"cell_type": "code", "source": ["import ", "torch"]},
    ]
    assert imports.code_cells({"cells": cells}) == ["import torch"]
