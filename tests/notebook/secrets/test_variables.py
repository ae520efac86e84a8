"""Which of the user's environment variables hold secrets, and that a job masks their values."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from haversack.notebook.secrets import variables
from tests.notebook import notebooks
from tests.notebook.conftest import Run

SECRET = ["GH_TOKEN", "TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_SECRETS", "OPENAI_API_KEY", "PGPASSWORD", "DB_PASSWORD_2"]
ORDINARY = ["TOKENIZERS_PARALLELISM", "MAX_TOKENS", "DB_PASSWORD_FILE", "SECRET_NAME", "API_KEYBOARD", "PATH", "KEY"]


@pytest.mark.parametrize("name", SECRET)
def test_names_of_secrets_are_known(name: str) -> None:
    assert variables.is_secret(name)
    assert variables.is_secret(name.lower())


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_are_not_taken_for_secrets(name: str) -> None:
    assert not variables.is_secret(name)


@pytest.mark.parametrize("value", ["s3same-street", "correcthorsebattery", "/starts/with+a/slash", "123456789012"])
def test_a_distinctive_value_is_masked(value: str) -> None:
    assert variables.secret_values({"DB_PASSWORD": value}) == [value]


@pytest.mark.parametrize(
    "value", ["", "true", "4096", "20261128", "password", "production", "https://vault.example/v1"]
)
def test_an_ordinary_word_number_or_address_is_not_masked(value: str) -> None:
    assert variables.secret_values({"DB_PASSWORD": value}) == []


def test_a_path_is_not_masked(tmp_path: Path) -> None:
    assert variables.secret_values({"MY_SECRET": str(tmp_path)}) == []


def test_a_job_masks_the_users_variables(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    word = "s3same-0pen/up"
    monkeypatch.setenv("SHOP_PASSWORD", word)
    monkeypatch.setenv("HARMLESS_NAME", "s3same-other")
    report = run(
        "import os\nword = os.environ['SHOP_PASSWORD']\nprint(word, os.environ['HARMLESS_NAME'])",
        "import base64\nprint(base64.b64encode(f'ada:{word}'.encode()).decode(), word.encode().hex())",
        "from urllib.parse import quote\nfor part in (quote(word, safe='')[:9], quote(word, safe='')[9:]):\n"
        "    print(part, end='', flush=True)",
        "from IPython.display import HTML\nHTML(f'<a title=\"{word}\">')",
        "raise RuntimeError(word)",
        html=tmp_path / "page.html",
    )
    assert notebooks.text(report.output, 0) == "*** s3same-other\n"
    assert notebooks.text(report.output, 1).split()[1] == "***"
    assert notebooks.text(report.output, 2) == "***"
    for text in (Path(report.output).read_text(), (tmp_path / "page.html").read_text(), report.error or ""):
        assert "0pen" not in text
        assert base64.b64encode(word.encode()).decode()[:12] not in text


def test_the_case_of_the_notebooks(run: Run) -> None:
    """scikit-learn's HTML and hashes stay; a JWT, a client's secret, an AWS key and a password in a URL do not."""
    report = run(
        "from sklearn.pipeline import make_pipeline\nfrom sklearn.preprocessing import StandardScaler\n"
        "make_pipeline(StandardScaler())",
        "print('cache key: d41d8cd98f00b204e9800998ecf8427e')\nprint('monkey=0cc175b9c0f1b6a831c399e269772661')",
        "print('.'.join(['eyJhbGciOiJIUzI1NiJ9', 'eyJzdWIiOiJub2JvZHkifQ', 'x' * 43]))\nprint('GOCSPX-' + 'a' * 28)\n"
        "print('AWS_SECRET_ACCESS_KEY=' + 'b' * 40)\nprint('postgres://user:pa55word@db.example/x')",
    )
    shown = notebooks.read(report.output).cells[0].outputs[0].data["text/html"]
    assert 'id="sk-container-id-1"' in shown
    assert "***" not in shown
    assert notebooks.text(report.output, 1).split("\n")[:2] == [
        "cache key: d41d8cd98f00b204e9800998ecf8427e",
        "monkey=0cc175b9c0f1b6a831c399e269772661",
    ]
    assert notebooks.text(report.output, 2) == (
        "***\n***\nAWS_SECRET_ACCESS_KEY=***\npostgres://user:***@db.example/x\n"
    )
