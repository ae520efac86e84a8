"""Notebooks from servers on loopback: the web by a proxy with TLS, a hub as the drive and as Kaggle."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from haversack.drive.filesystem import DriveFileSystem
from haversack.errors import (
    ConnectionFailed,
    HaversackError,
    InputError,
    NotebookInvalid,
    NotFound,
    RemoteError,
    SignInError,
)
from haversack.notebook.sources import fetching
from haversack.notebook.sources.source import file_name, opened
from tests.conftest import RunningHub
from tests.notebook.sources.web import Page, Web, served

NOTEBOOK = json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()
GIST = "0123456789abcdef0123"


@pytest.fixture(scope="module")
def shared_web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with served(tmp_path_factory.mktemp("web")) as web:
        yield web


@pytest.fixture
def web(shared_web: Web, monkeypatch: pytest.MonkeyPatch) -> Web:
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", shared_web.proxy)
    monkeypatch.setenv("HTTP_PROXY", shared_web.proxy)
    monkeypatch.setenv("HAVERSACK_CA", str(shared_web.ca))
    shared_web.pages.clear()
    shared_web.asked.clear()
    return shared_web


def content(source: str) -> bytes:
    with opened(source) as given:
        return given.path.read_bytes()


def test_a_page_of_github_is_fetched_without_a_sign_in(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaa")
    web.pages["https://raw.githubusercontent.com/o/r/a/b/my%20x.ipynb"] = Page(NOTEBOOK)
    with opened("https://colab.research.google.com/github/o/r/blob/a/b/my%20x.ipynb") as given:
        assert given.path.read_bytes() == NOTEBOOK
        assert given.path.name == "my x.ipynb"
        assert given.path.parent != Path.cwd()
        assert (given.is_own, given.address) == (
            False,
            "https://colab.research.google.com/github/o/r/blob/a/b/my%20x.ipynb",
        )
    assert not given.path.exists()
    assert [name for _, headers in web.asked for name in headers if name.lower() == "authorization"] == []


def test_a_redirect_is_followed(web: Web) -> None:
    web.pages["https://huggingface.co/o/r/resolve/main/x.ipynb"] = Page(
        status=302, headers={"Location": "https://example.org/signed?x=1"}
    )
    web.pages["https://example.org/signed?x=1"] = Page(NOTEBOOK)
    assert content("https://huggingface.co/o/r/blob/main/x.ipynb") == NOTEBOOK


def test_a_short_link_to_a_page_leads_to_its_file(web: Web) -> None:
    page = "https://huggingface.co/o/r/blob/main/x.ipynb"
    web.pages["https://example.org/s"] = Page(status=301, headers={"Location": page})
    web.pages[page] = Page(b"<html></html>")
    web.pages["https://huggingface.co/o/r/resolve/main/x.ipynb"] = Page(NOTEBOOK)
    with opened("https://example.org/s") as given:
        assert (given.path.read_bytes(), given.path.name) == (NOTEBOOK, "x.ipynb")


def gist(web: Web, *names: str) -> None:
    files = {name: {"raw_url": f"https://gist.githubusercontent.com/raw/{name}"} for name in names}
    web.pages[f"https://api.github.com/gists/{GIST}"] = Page(json.dumps({"files": files}).encode())
    for name in names:
        web.pages[f"https://gist.githubusercontent.com/raw/{name}"] = Page(NOTEBOOK)


def test_a_gist_is_its_only_notebook(web: Web) -> None:
    gist(web, "readme.md", "one.ipynb")
    with opened(f"https://gist.github.com/me/{GIST}") as given:
        assert given.path.name == "one.ipynb"


@pytest.mark.parametrize("end", ["#file-two-b-ipynb", "/two.b.ipynb"])
def test_of_several_notebooks_in_a_gist_the_address_names_one(web: Web, end: str) -> None:
    gist(web, "one.ipynb", "two.b.ipynb")
    with opened(f"https://gist.github.com/me/{GIST}{end}") as given:
        assert given.path.name == "two.b.ipynb"


@pytest.mark.parametrize(
    ("names", "end", "error"),
    [
        (("one.ipynb", "two.ipynb"), "", (InputError, "2 notebooks: one.ipynb, two.ipynb")),
        (("readme.md",), "", (NotFound, "no notebook")),
        (("one.ipynb",), "/three.ipynb", (NotFound, "no notebook three.ipynb")),
    ],
)
def test_a_gist_that_does_not_say_which(
    web: Web, names: tuple[str, ...], end: str, error: tuple[type[HaversackError], str]
) -> None:
    gist(web, *names)
    with pytest.raises(error[0], match=error[1]), opened(f"https://gist.github.com/me/{GIST}{end}"):
        pass


X = "https://example.org/x.ipynb"


@pytest.mark.parametrize(
    ("page", "error", "what"),
    [
        (Page(status=404), NotFound, "There is no file at"),
        (Page(status=401), SignInError, "wants a sign-in"),
        (Page(status=403), SignInError, "wants a sign-in"),
        (Page(b"\n <!DOCTYPE html><html></html>"), NotebookInvalid, "is a web page, not a notebook"),
        (Page(b"print(1)"), NotebookInvalid, "is not a notebook"),
        (Page(b'{"a": 1}'), NotebookInvalid, "is not a notebook"),
        (Page(b"[" * 100_000), NotebookInvalid, "is not a notebook"),
        (Page(gzip.compress(NOTEBOOK)), NotebookInvalid, "is not a notebook"),
        (Page(status=302, headers={"Location": X}), RemoteError, "redirects more than 5 times"),
        (Page(status=302), RemoteError, "redirects, but does not say where to"),
        (Page(status=302, headers={"Location": "file:///etc/passwd"}), ConnectionFailed, "could not be fetched"),
        (Page(NOTEBOOK, headers={"Content-Length": "400000000"}), NotebookInvalid, "is longer than"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_sentence(web: Web, page: Page, error: type[HaversackError], what: str) -> None:
    web.pages[X] = page
    with pytest.raises(error, match=what) as raised, opened(X):
        pass
    assert raised.value.next_step


def test_a_body_that_grows_too_long_is_not_kept(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", 100)
    web.pages[X] = Page(b" " * 200, headers={"Content-Length": "200"})
    with pytest.raises(NotebookInvalid, match="is longer than"), opened(X):
        pass


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectionFailed, match="does not answer") as raised, opened("http://127.0.0.1:9/x.ipynb"):
        pass
    assert raised.value.next_step


def test_a_secret_in_the_address_is_sent_and_not_shown(web: Web) -> None:
    web.pages[f"{X}?token=abcdef123456"] = Page(status=404)
    with pytest.raises(NotFound) as raised, opened(f"{X}?token=abcdef123456"):
        pass
    assert "abcdef123456" not in str(raised.value)
    assert web.asked[-1][0].endswith("?token=abcdef123456")


# The user's own services


def test_a_notebook_on_the_drive_is_the_users_own(own_hub: RunningHub) -> None:
    (own_hub.my_drive / "a b").mkdir()
    (own_hub.my_drive / "a b" / "x.ipynb").write_bytes(NOTEBOOK)
    with opened("drive:/My Drive/a b/x.ipynb") as given:
        assert (given.path.read_bytes(), given.path.name, given.is_own) == (NOTEBOOK, "x.ipynb", True)
        assert given.address == "drive:/My Drive/a b/x.ipynb"
    file_id = DriveFileSystem().info("a b/x.ipynb")["id"]
    with opened(f"https://colab.research.google.com/drive/{file_id}") as given:
        assert (given.path.read_bytes(), given.path.name, given.is_own) == (NOTEBOOK, "x.ipynb", True)
    with pytest.raises(NotFound, match="has no file 1AbCdEfGhIjKlM"), opened(
        "https://colab.research.google.com/drive/1AbCdEfGhIjKlM"
    ):  # fmt: skip
        pass
    with pytest.raises(NotFound), opened("drive:/My Drive/y.ipynb"):
        pass


class _Shared(BaseHTTPRequestHandler):
    """A drive with one file, which somebody else owns."""

    def do_GET(self) -> None:
        body = NOTEBOOK if "alt=media" in self.path else b'{"name": "theirs.ipynb", "ownedByMe": false}'
        self.send_response(200 if self.headers["Authorization"] == "Bearer token" else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""


def test_a_file_of_somebody_elses_on_the_drive_is_not_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Shared) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HAVERSACK_HUB", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("HAVERSACK_TOKEN", "token")
        with opened("https://colab.research.google.com/drive/1AbCdEfGhIjKlM") as given:
            assert (given.path.name, given.is_own) == ("theirs.ipynb", False)
        server.shutdown()


def test_a_notebook_of_kaggles_comes_by_its_api(own_hub: RunningHub) -> None:
    (own_hub.root / "notebooks" / "me").mkdir(parents=True)
    (own_hub.root / "notebooks" / "me" / "my-nb.ipynb").write_bytes(NOTEBOOK)
    with opened("https://www.kaggle.com/code/me/my-nb/notebook") as given:
        assert (given.path.read_bytes(), given.path.name, given.is_own) == (NOTEBOOK, "my-nb.ipynb", False)
    with pytest.raises(NotFound, match="no notebook me/other"), opened("https://www.kaggle.com/code/me/other"):
        pass


def test_without_a_sign_in_to_kaggle_nothing_is_asked() -> None:
    with pytest.raises(SignInError, match="haversack login kaggle"), opened("https://www.kaggle.com/code/me/my-nb"):
        pass


@pytest.mark.parametrize(
    ("blob", "what"),
    [
        ({"kernelType": "script", "language": "python"}, "is a script, not"),
        ({"kernelType": "notebook", "language": "r"}, "is a notebook in R"),
    ],
)
def test_a_script_and_a_notebook_in_r_are_refused(blob: dict[str, Any], what: str) -> None:
    with pytest.raises(NotebookInvalid, match=what):
        fetching._kaggle_source(blob, "me/x")


# Other places


def test_a_store_of_fsspecs_is_read_and_not_trusted() -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/bucket/x.ipynb", NOTEBOOK)
    with opened("memory://bucket/x.ipynb") as given:
        assert (given.path.read_bytes(), given.is_own) == (NOTEBOOK, False)
    with pytest.raises(NotFound), opened("memory://bucket/y.ipynb"):
        pass
    with pytest.raises(InputError, match="cannot be opened"), opened("nonsense://bucket/x.ipynb"):
        pass


def test_a_notebook_by_the_standard_input_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(NOTEBOOK)))
    with opened("-") as given:
        assert (given.path.read_bytes(), given.address, given.is_own) == (NOTEBOOK, "standard input", False)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("x.ipynb", "x.ipynb"),
        ("", "notebook.ipynb"),
        ("x", "x.ipynb"),
        ("../../.ssh/authorized_keys", "authorized_keys.ipynb"),
        ("..", "notebook.ipynb"),
        ("a\nb\x1b[31m.ipynb", "a-b-31m.ipynb"),
        ("a" * 300 + ".ipynb", "a" * 100 + ".ipynb"),
        ("Übung 1.IPYNB", "Übung 1.ipynb"),
    ],
)
def test_a_files_name_is_one_part_of_a_path(name: str, file: str) -> None:
    assert file_name(name) == file


def test_a_path_is_opened_without_an_http_client() -> None:
    code = "from haversack.notebook.sources.source import opened\nimport sys\nwith opened('x.ipynb'): pass\n"
    code += "print('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
