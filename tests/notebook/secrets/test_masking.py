"""Secrets masked wherever a job writes or shows something."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from haversack.notebook.secrets.masking import Secrets
from haversack.notebook.sessions import kernel
from tests.notebook import notebooks
from tests.notebook.conftest import Run

KEY = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "secret",
    [
        f'{{"username":"u","key":"{KEY}"}}',
        f"{{'username': 'u', 'key': '{KEY}'}}",
        f'{{\\"username\\":\\"u\\",\\"key\\":\\"{KEY}\\"}}',
        f"{{&quot;username&quot;:&quot;u&quot;,&quot;key&quot;:&quot;{KEY}&quot;}}",
        "token ya29." + "a" * 30,
        "AIza" + "b" * 35,
        "ghp_" + "c" * 36,
        "github_pat_" + "d" * 40,
        "hf_" + "e" * 34,
        "sk-" + "f" * 40,
        "AKIA" + "G" * 16,
        "xoxb-" + "1" * 20,
        "Authorization: Bearer " + "h" * 24,
        "WANDB_API_KEY=" + "0a" * 20,
        "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_shapes_of_known_tokens_are_masked(secret: str) -> None:
    cleaned = Secrets().mask(f"before {secret} after")
    assert "***" in cleaned
    assert cleaned.startswith("before ")
    assert cleaned.endswith(" after")
    assert not any(part * 8 in cleaned for part in ("a", "b", "c", "d", "e", "f", "G", "1", "h", "0a"))
    assert KEY not in cleaned


@pytest.mark.parametrize("text", ["key: value", f"key: {KEY}", "sk-learn", "Bearer of news"])
def test_ordinary_text_stays(text: str) -> None:
    assert Secrets().mask(text) == text


def test_a_known_value_is_masked_in_every_spelling() -> None:
    secrets = Secrets()
    secrets.add('pa"ss<word>/1')
    spellings = ['pa"ss<word>/1', r"pa\"ss<word>/1", "pa&quot;ss&lt;word&gt;/1", "pa%22ss%3Cword%3E%2F1"]
    assert secrets.mask(" ".join(spellings)) == "*** *** *** ***"


def test_short_values_are_left_alone() -> None:
    secrets = Secrets()
    secrets.add("12345", "")
    assert secrets.mask("12345") == "12345"


def test_a_value_learnt_later_is_masked_in_a_text_seen_before() -> None:
    secrets = Secrets()
    text = "hunter-two " * 200
    assert secrets.mask(text) == text
    secrets.add("hunter-two")
    assert "hunter" not in secrets.mask(text)


def test_a_long_output_is_searched_once_though_known_secrets_are_told_again() -> None:
    secrets = Secrets()
    secrets.add("correct horse")
    masked = secrets.mask("correct horse " * 100)
    secrets.add("correct horse")
    assert secrets.mask("correct horse " * 100) is masked


def test_progress_that_is_shown_once_is_not_kept() -> None:
    secrets = Secrets()
    secrets.mask("warm up " * 500, cached=False)
    tracemalloc.start()
    for step in range(200):
        secrets.mask(f"{step} {'x' * 4000}", cached=False)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 100_000


def test_pictures_are_kept_byte_for_byte() -> None:
    token = "sk-" + "f" * 40
    files = dict.fromkeys(("image/png", "font/woff2", "application/pdf", "application/vnd.ms-excel"), token)
    texts = ("text/plain", "image/svg+xml", "application/json", "application/vnd.plotly.v1+json")
    assert Secrets().mask_json({**files, **dict.fromkeys(texts, token)}) == {**files, **dict.fromkeys(texts, "***")}


def test_no_field_is_lost_whose_name_is_masked() -> None:
    secrets = Secrets()
    secrets.add("hunter-two", "correct-horse")
    assert secrets.mask_json({"hunter-two": 1, "correct-horse": 2}) == {"***": 1, "****": 2}


def test_neighbours_become_one_mask() -> None:
    secrets = Secrets()
    secrets.add("hunter-two", "hunter-two-three", "three-four")
    assert secrets.mask("hunter-two-three-four hunter-two") == "*** ***"


def test_no_repr_shows_a_secret() -> None:
    secrets = Secrets()
    secrets.add("hunter-two")
    assert "hunter" not in repr(secrets)


def test_a_kaggle_key_leaves_no_trace(run: Run, tmp_path: Path) -> None:
    report = run(
        f"""!mkdir -p ~/.kaggle && echo '{{"username":"u","key":"{KEY}"}}' > ~/.kaggle/kaggle.json""",
        "!cat ~/.kaggle/kaggle.json",
        "import json, os\nkey = json.load(open(os.path.expanduser('~/.kaggle/kaggle.json')))['key']\nprint(key)\nkey",
        "from IPython.display import HTML\nHTML(f'<b>{key}</b>')",
        "for part in (key[:9], key[9:20], key[20:]):\n    print(part, end='', flush=True)",
        "os.system('echo $0 >&2; echo key=' + key)\nraise RuntimeError(key)",
        html=tmp_path / "page.html",
    )
    assert report.error.startswith("Cell 6 failed: RuntimeError: ***. ")
    written = [Path(report.output), tmp_path / "page.html", Path(report.job, "kernel.log")]
    assert not [path for path in written if KEY in path.read_text()]
    assert KEY not in json.dumps(report.json())
    assert notebooks.text(report.output, 4) == "***"


def test_a_key_file_written_by_a_cell_is_masked(run: Run) -> None:
    key = f"key = '{KEY[:16]}' + '{KEY[16:]}'"
    report = run(key, """open('kaggle.json', 'w').write('{"key": "%s"}' % key)""", "print(key)")
    assert notebooks.text(report.output, 2) == "***\n"


def test_a_token_in_a_file_that_the_environment_names_is_masked(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("without-any-shape\n")
    monkeypatch.setenv("KAGGLE_API_TOKEN", str(tmp_path / "token"))
    report = run("!cat $KAGGLE_API_TOKEN")
    assert notebooks.text(report.output, 0).strip() == "***"


def test_userdata_is_masked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_SECRET_MY_KEY", "no-shape-at-all")
    report = run("from google.colab import userdata\nprint(userdata.get('MY_KEY'))", "!env | grep MY_KEY")
    assert notebooks.text(report.output, 0) == "***\n"
    assert "no-shape" not in Path(report.output).read_text()


def test_a_private_key_in_the_kernels_log_is_masked(tmp_path: Path) -> None:
    log = kernel.KernelLog(tmp_path / "kernel.log", Secrets())
    body = "\n".join("abcdefgh" * 8 for _ in range(3))
    text = f"before\n-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----\nafter\n"
    os.write(log.pipe, text.encode())
    os.close(log.pipe)
    log._thread.join()
    assert (tmp_path / "kernel.log").read_text() == "before\n***\nafter\n"
