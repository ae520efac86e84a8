"""Which file a page's address stands for, as plain data."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.errors import InputError
from haversack.notebook.sources import addresses
from haversack.notebook.sources.addresses import Address

RAW = "https://raw.githubusercontent.com/o/r/main/a/x.ipynb"
GIST = "0123456789abcdef0123"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("https://github.com/o/r/blob/main/a/x.ipynb", RAW),
        ("https://github.com/o/r/raw/main/a/x.ipynb", RAW),
        ("https://github.com/o/r/blame/main/a/x.ipynb", RAW),
        ("https://www.github.com/o/r/blob/main/a/x.ipynb?plain=1#L3", RAW),
        ("http://github.com/o/r/blob/main/a/x.ipynb", RAW),
        ("HTTPS://GitHub.com/o/r/blob/main/a/x.ipynb", RAW),
        ("github.com/o/r/blob/main/a/x.ipynb", RAW),
        (" https://github.com/o/r/blob/main/a/x.ipynb\n", RAW),
        (
            "https://github.com/o/r/blob/feature/new/a/x.ipynb",
            "https://raw.githubusercontent.com/o/r/feature/new/a/x.ipynb",
        ),
        (
            "https://github.com/o/r/raw/refs/heads/main/x.ipynb",
            "https://raw.githubusercontent.com/o/r/refs/heads/main/x.ipynb",
        ),
        (
            "https://github.com/o/r/blob/main/my notes/ü x.ipynb",
            "https://raw.githubusercontent.com/o/r/main/my%20notes/%C3%BC%20x.ipynb",
        ),
        (
            "https://github.com/o/r/blob/main/my%20notes/x.ipynb",
            "https://raw.githubusercontent.com/o/r/main/my%20notes/x.ipynb",
        ),
        ("https://raw.githubusercontent.com/o/r/main/a/x.ipynb?token=T", RAW + "?token=T"),
        ("https://colab.research.google.com/github/o/r/blob/main/a/x.ipynb#scrollTo=abc", RAW),
        ("https://colab.research.google.com/github/o/r/blob/main/a/x.ipynb?hl=en", RAW),
        ("https://githubtocolab.com/o/r/blob/main/a/x.ipynb", RAW),
        ("https://github.dev/o/r/blob/main/a/x.ipynb", RAW),
        ("https://nbviewer.org/github/o/r/blob/main/a/x.ipynb", RAW),
        ("https://nbviewer.jupyter.org/github/o/r/tree/main/a/x.ipynb", RAW),
        ("https://nbviewer.org/urls/example.org/a/x.ipynb", "https://example.org/a/x.ipynb"),
        ("https://nbviewer.org/url/example.org/a/x.ipynb", "http://example.org/a/x.ipynb"),
        ("https://nbviewer.org/urls/github.com/o/r/blob/main/a/x.ipynb", RAW),
        ("https://studiolab.sagemaker.aws/import/github/o/r/blob/main/a/x.ipynb", RAW),
        ("https://console.paperspace.com/github/o/r/blob/main/a/x.ipynb", RAW),
        ("https://mybinder.org/v2/gh/o/r/main?labpath=a%2Fx.ipynb", RAW),
        ("https://mybinder.org/v2/gh/o/r/main?filepath=a/x.ipynb", RAW),
        ("https://mybinder.org/v2/gh/o/r/main?urlpath=lab%2Ftree%2Fa%2Fx.ipynb", RAW),
        ("https://kaggle.com/kernels/welcome?src=https://github.com/o/r/blob/main/a/x.ipynb", RAW),
        ("https://deepnote.com/launch?url=https%3A%2F%2Fgithub.com%2Fo%2Fr%2Fblob%2Fmain%2Fa%2Fx.ipynb", RAW),
        ("github://o:r@main/a/x.ipynb", RAW),
        (
            "https://colab.research.google.com/#fileId=https%3A//huggingface.co/o/r/blob/main/x.ipynb",
            "https://huggingface.co/o/r/resolve/main/x.ipynb",
        ),
        ("https://huggingface.co/o/r/blob/main/a/x.ipynb", "https://huggingface.co/o/r/resolve/main/a/x.ipynb"),
        (
            "https://huggingface.co/datasets/o/r/resolve/v1/x.ipynb?download=true",
            "https://huggingface.co/datasets/o/r/resolve/v1/x.ipynb",
        ),
        ("hf://datasets/o/r/a/x.ipynb", "https://huggingface.co/datasets/o/r/resolve/main/a/x.ipynb"),
        ("hf://o/r@v1/x.ipynb", "https://huggingface.co/o/r/resolve/v1/x.ipynb"),
        ("https://gitlab.com/g/sub/p/-/blob/main/x.ipynb?ref_type=heads", "https://gitlab.com/g/sub/p/-/raw/main/x.ipynb"),
        ("https://codeberg.org/o/r/src/branch/main/x.ipynb", "https://codeberg.org/o/r/raw/branch/main/x.ipynb"),
        ("https://bitbucket.org/w/r/src/main/x.ipynb", "https://bitbucket.org/w/r/raw/main/x.ipynb"),
        ("https://www.dropbox.com/s/abc/x.ipynb?dl=0", "https://www.dropbox.com/s/abc/x.ipynb?dl=1"),
        ("https://nbviewer.org/urls/https://example.org/a/x.ipynb", "https://example.org/a/x.ipynb"),
        ("https://gesis.mybinder.org/v2/gh/o/r/main?labpath=a%2Fx.ipynb", RAW),
        ("https://vscode.dev/github/o/r/blob/main/a/x.ipynb", RAW),
        (
            "https://hub.example.org/hub/user-redirect/git-pull?repo=https%3A%2F%2Fgithub.com%2Fo%2Fr"
            "&urlpath=lab%2Ftree%2Fr%2Fa%2Fx.ipynb&branch=main",
            RAW,
        ),
        (
            "https://console.cloud.google.com/vertex-ai/colab/import/https:%2F%2Fgithub.com%2Fo%2Fr%2Fblob%2Fmain%2Fa"
            "%2Fx.ipynb",
            RAW,
        ),
        (f"https://console.cloud.google.com/vertex-ai/workbench/deploy-notebook?download_url={RAW}", RAW),
        ("https://console.cloud.google.com/bigquery/import?url=https://github.com/o/r/blob/main/a/x.ipynb", RAW),
        ("https://github.example.org/o/r/blob/main/x.ipynb", "https://github.example.org/o/r/raw/main/x.ipynb"),
        (
            "https://github.com/o/r/releases/download/v1/x.ipynb",
            "https://github.com/o/r/releases/download/v1/x.ipynb",
        ),
        ("https://example.org/files/x.ipynb?v=2#top", "https://example.org/files/x.ipynb?v=2"),
        ("http://127.0.0.1:8000/x.ipynb", "http://127.0.0.1:8000/x.ipynb"),
    ],
)  # fmt: skip
def test_a_page_stands_for_its_file(source: str, target: str) -> None:
    found = addresses.parse(source)
    assert (found.kind, found.target) == ("url", target)


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("train.ipynb", Address("path", "train.ipynb")),
        ("/a b/x.ipynb", Address("path", "/a b/x.ipynb")),
        ("my.folder/sub/x.ipynb", Address("path", "my.folder/sub/x.ipynb")),
        ("file:///a%20b/x.ipynb", Address("path", "/a b/x.ipynb")),
        ("drive:/My Drive/x.ipynb", Address("drive", "drive://My Drive/x.ipynb")),
        ("drive://a/x.ipynb", Address("drive", "drive://a/x.ipynb")),
        ("drive:a/x.ipynb", Address("drive", "drive://a/x.ipynb")),
        ("s3://bucket/x.ipynb", Address("store", "s3://bucket/x.ipynb")),
        ("-", Address("input", "-", "stdin.ipynb")),
        ("https://colab.research.google.com/drive/1AbCdEfGhIjK?usp=sharing", Address("drive file", "1AbCdEfGhIjK")),
        ("https://colab.research.google.com/drive/1AbCdEfGhIjK#scrollTo=x", Address("drive file", "1AbCdEfGhIjK")),
        ("https://colab.research.google.com/notebook#fileId=1AbCdEfGhIjK&x=1", Address("drive file", "1AbCdEfGhIjK")),
        ("https://drive.google.com/file/d/1AbCdEfGhIjK/view?usp=drive_link", Address("drive file", "1AbCdEfGhIjK")),
        ("https://drive.google.com/open?id=1AbCdEfGhIjK&authuser=0", Address("drive file", "1AbCdEfGhIjK")),
        (f"https://gist.github.com/me/{GIST}", Address("gist", GIST)),
        (f"https://gist.github.com/{GIST}", Address("gist", GIST)),
        (f"https://gist.github.com/me/{GIST}#file-a-b-ipynb", Address("gist", GIST, "file-a-b-ipynb")),
        (f"https://gist.github.com/me/{GIST}/{GIST * 2}", Address("gist", f"{GIST}/{GIST * 2}")),
        (f"https://colab.research.google.com/gist/me/{GIST}/a.ipynb#x", Address("gist", GIST, "a.ipynb")),
        (f"https://nbviewer.org/gist/me/{GIST}", Address("gist", GIST)),
        (f"gist:{GIST}", Address("gist", GIST)),
        ("http://nbviewer.ipython.org/3903134", Address("gist", "3903134")),
        (f"https://nbviewer.org/{GIST}/a.ipynb", Address("gist", GIST, "a.ipynb")),
        (f"https://mybinder.org/v2/gist/me/{GIST}/HEAD?filepath=a.ipynb", Address("gist", GIST, "a.ipynb")),
        (
            "https://drive.usercontent.google.com/download?id=1AbCdEfGhIjK&export=download",
            Address("drive file", "1AbCdEfGhIjK"),
        ),
        ("https://www.kaggle.com/code/me/my-nb", Address("kaggle", "me/my-nb", "my-nb.ipynb")),
        ("https://www.kaggle.com/me/my-nb", Address("kaggle", "me/my-nb", "my-nb.ipynb")),
        ("kaggle.com/code/me/my-nb/notebook?scriptVersionId=7", Address("kaggle", "me/my-nb", "my-nb.ipynb")),
    ],
)
def test_other_places_are_told_apart(source: str, address: Address) -> None:
    assert addresses.parse(source) == address


@pytest.mark.parametrize(
    "source",
    [
        "https://github.com/o/r",
        "https://www.kaggle.com/datasets/o/r",
        "https://huggingface.co/o/r",
        "https://mybinder.org/v2/gh/o/r/main",
        "https://colab.research.google.com/notebooks/intro.ipynb",
        "https://colab.research.google.com/",
    ],
)
def test_a_page_without_a_notebook_is_refused(source: str) -> None:
    with pytest.raises(InputError, match="is not the page of a notebook"):
        addresses.parse(source)


@pytest.mark.parametrize("source", ["http://[::1/x.ipynb", "https://me:secret@[x/o/r", "https://nbviewer.org/url/[x/y"])
def test_an_invalid_address_is_refused_and_not_shown(source: str) -> None:
    with pytest.raises(InputError, match=r"^The address is not valid\. Copy it again"):
        addresses.parse(source)


def test_a_path_that_exists_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "github.com" / "o" / "r").mkdir(parents=True)
    (tmp_path / "github.com" / "o" / "r" / "x.ipynb").touch()
    assert addresses.parse("github.com/o/r/x.ipynb").kind == "path"


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://me:secret@example.org/x.ipynb", "https://example.org/x.ipynb"),
        ("https://example.org/x.ipynb?token=abc&v=2", "https://example.org/x.ipynb?token=***&v=2"),
        ("https://example.org/x.ipynb?v=2", "https://example.org/x.ipynb?v=2"),
        ("https://b.s3.amazonaws.com/x.ipynb?X-Amz-Signature=ab", "https://b.s3.amazonaws.com/x.ipynb?X-Amz-Signature=***"),
        ("drive:/My Drive/x.ipynb", "drive:/My Drive/x.ipynb"),
    ],
)  # fmt: skip
def test_secrets_of_an_address_are_not_shown(source: str, shown: str) -> None:
    assert addresses.shown(source) == shown
