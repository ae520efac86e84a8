"""The curated table: its form, its traps, and what the packages installed here say of it."""

from __future__ import annotations

import subprocess
import zipfile
from importlib import metadata, resources
from pathlib import Path

import pytest

from haversack.packages.table import normalized, project_of, provider_of, table
from haversack.packages.uv import program


def project(module: str) -> str:
    found = provider_of(module)
    assert found is not None
    return found.project


def test_every_row_is_complete_and_stands_in_order() -> None:
    text = (resources.files("haversack.packages") / "table.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")][1:]
    assert [row for row in rows if not 4 <= len(row) <= 6 or not all(row[:4])] == []
    names = [row[0] for row in rows]
    assert names == sorted(set(names), key=lambda name: (name.lower(), name))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("sklearn.ensemble", "scikit-learn"),
        ("cv2", "opencv-python-headless"),
        ("PIL.Image", "pillow"),
        ("yaml", "PyYAML"),
        ("skimage.io", "scikit-image"),
        ("community", "python-louvain"),
        ("bs4", "beautifulsoup4"),
        ("Crypto.Cipher", "pycryptodome"),
        ("google.protobuf.text_format", "protobuf"),
        ("google.cloud.storage", "google-cloud-storage"),
        ("google.cloud.bigquery", "google-cloud-bigquery"),
        ("google.generativeai", "google-generativeai"),
        ("google.genai.types", "google-genai"),
        ("mpl_toolkits.mplot3d", "matplotlib"),
        ("faiss", "faiss-cpu"),
    ],
)
def test_a_module_has_its_project(module: str, name: str) -> None:
    assert project(module) == name


@pytest.mark.parametrize("module", ["google", "google.cloud", "google.unheard", "unheard", "sk", "enum34"])
def test_what_is_in_no_row_has_no_project(module: str) -> None:
    assert provider_of(module) is None


@pytest.mark.parametrize(
    ("module", "requirement"),
    [
        ("pandas", "pandas"),
        ("pkg_resources", "setuptools<81"),
        ("distutils.util", "setuptools<81"),
        ("moviepy.editor", "moviepy<2"),
        ("moviepy", "moviepy"),
        ("dask.dataframe", "dask[dataframe]"),
        ("psycopg2", "psycopg2-binary"),
        ("learntools", "learntools @ git+https://github.com/Kaggle/learntools.git"),
        ("segment_anything", "segment-anything @ git+https://github.com/facebookresearch/segment-anything.git"),
        ("google.colab.drive", ""),
        ("IPython.display", ""),
        ("haversack", ""),
        ("kaggle_secrets", ""),
        ("osgeo.gdal", ""),
        ("gi", ""),
    ],
)
def test_what_is_installed_for_a_module(module: str, requirement: str) -> None:
    found = provider_of(module)
    assert found is not None
    assert found.requirement == requirement


def test_other_projects_that_provide_a_module_are_known() -> None:
    found = provider_of("cv2")
    assert found is not None
    assert {"opencv-python", "opencv-contrib-python", "opencv-python-headless"} <= found.projects


def test_the_packages_installed_here_agree() -> None:
    """Hold each row whose project is installed here against the metadata of the installed packages."""
    installed = {
        module: {normalized(name) for name in names} for module, names in metadata.packages_distributions().items()
    }
    here = {normalized(distribution.name) for distribution in metadata.distributions()}
    rows = [row for row in table().values() if row.requirement and normalized(row.project) in here]
    wrong = [row for row in rows if normalized(row.project) not in installed.get(row.module.partition(".")[0], set())]
    assert len(rows) > 100
    assert {row.module for row in wrong} == set()


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("Scikit_Learn", "scikit-learn"),
        ("torch==2.1", "torch"),
        ("torch~=2.1", "torch"),
        ("jax[cuda12] >= 0.4", "jax"),
        ('numpy<2 ; python_version < "3.13"', "numpy"),
        ("pandas --hash=sha256:00", "pandas"),
        ("thing @ git+https://github.com/someone/other", "thing"),
        ("git+https://github.com/huggingface/transformers.git@main", "transformers"),
        ("https://example.org/whl/torch_xla-2.1-cp310-linux.whl", "torch-xla"),
        ("./thing", ""),
        ("{name}", ""),
        ("-r requirements.txt", ""),
    ],
)
def test_the_project_of_a_requirement(requirement: str, name: str) -> None:
    assert project_of(requirement) == name


def test_the_table_is_in_the_built_wheel(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent.parent
    command = [program(), "build", "-q", "--wheel", "-o", str(tmp_path), str(root)]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        assert (
            archive.read("haversack/packages/table.tsv") == (root / "haversack" / "packages" / "table.tsv").read_bytes()
        )
