from __future__ import annotations

import http.server
import json
import random
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from haversack.datasets.kaggle import Competition, DatasetName, parse_source
from haversack.datasets.publication import put
from haversack.datasets.source import dataset, normalize_source
from haversack.errors import Forbidden, InputError, NotFound, RateLimited, RulesNotAccepted, SignInError
from tests import calls
from tests.archive.zips import zipped
from tests.conftest import RunningHub, start_hub
from tests.datasets.proxy import Proxy, between


def test_name_without_version() -> None:
    assert parse_source("kaggle:taindow/rsna-train-224x") == (DatasetName("taindow", "rsna-train-224x"), "")


def test_name_with_version() -> None:
    assert parse_source("kaggle:a/b@12") == (DatasetName("a", "b", 12), "")


@pytest.mark.parametrize(
    "source",
    [
        "kaggle:", "kaggle:a", "kaggle:a/", "kaggle:/b", "kaggle:a/b@", "kaggle:a/b@0", "kaggle:a/b@x",
        "kaggle:../b", "kaggle:a/..", "kaggle:a b/c", "kaggle:a/b\n", "kaggle:ä/b", "a/b",
    ],
)  # fmt: skip
def test_malformed_name_is_refused(source: str) -> None:
    with pytest.raises(InputError, match="kaggle:owner/name"):
        parse_source(source)


@pytest.mark.parametrize(
    ("source", "name", "folder"),
    [
        ("kaggle:a/b/train", DatasetName("a", "b"), "train"),
        ("kaggle:a/b@3/train/cat dog/", DatasetName("a", "b", 3), "train/cat dog"),
        ("kaggle:c/titanic", Competition("titanic"), ""),
        ("kaggle:c/titanic/test", Competition("titanic"), "test"),
    ],
)
def test_folders_and_competitions(source: str, name: DatasetName | Competition, folder: str) -> None:
    assert parse_source(source) == (name, folder)


@pytest.mark.parametrize("source", ["kaggle:a/b/../c", "kaggle:a/b//c", "kaggle:a/b/./c", "kaggle:a/b/c\0"])
def test_folder_that_leads_out_is_refused(source: str) -> None:
    with pytest.raises(InputError, match="kaggle:owner/name"):
        parse_source(source)


@pytest.mark.parametrize(
    ("link", "source"),
    [
        ("https://www.kaggle.com/datasets/taindow/rsna-train?select=a.csv", "kaggle:taindow/rsna-train"),
        ("https://www.kaggle.com/datasets/taindow/rsna-train/versions/3", "kaggle:taindow/rsna-train@3"),
        ("https://www.kaggle.com/competitions/titanic/data", "kaggle:c/titanic"),
        ("https://www.kaggle.com/c/titanic", "kaggle:c/titanic"),
    ],
)
def test_link_of_a_page_is_a_source(link: str, source: str) -> None:
    assert normalize_source(link) == source


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """An archive of 24 MB."""
    path = tmp_path / "large.zip"
    path.write_bytes(zipped({"noise.bin": random.Random(3).randbytes(24_000_000)}, method=zipfile.ZIP_STORED))
    return path


@pytest.fixture
def slow(hub: RunningHub) -> Iterator[Proxy]:
    """A slow way to the hub."""
    with between(hub.url) as proxy:
        proxy.delay = 0.005
        yield proxy


def kill_upload(archive: Path, name: str, proxy: Proxy) -> None:
    """Have a process upload `archive`, and kill it in the middle."""
    program = (
        "import sys; from haversack.datasets.publication import put; put(sys.argv[1], sys.argv[2], hub=sys.argv[3])"
    )
    process = subprocess.Popen([sys.executable, "-c", program, archive, name, proxy.url])
    while proxy.sent < 6_000_000:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = -1
    while proxy.sent > before:
        before = proxy.sent
        time.sleep(0.1)
    proxy.sent = 0


def test_cut_upload_goes_on_where_it_stopped(slow: Proxy, large: Path) -> None:
    slow.cut_at = 8_000_000
    published = put(large, "kaggle:haversack/cut-upload", hub=slow.url)
    assert slow.sent < 30_000_000
    with dataset(published.source) as data:
        assert data.read("noise.bin") == random.Random(3).randbytes(24_000_000)


def test_killed_upload_goes_on_where_it_stopped(slow: Proxy, large: Path, tmp_path: Path) -> None:
    kill_upload(large, "kaggle:haversack/killed-upload", slow)
    published = put(large, "kaggle:haversack/killed-upload", hub=slow.url)
    assert 1_000_000 < slow.sent < 20_000_000
    with dataset(published.source) as data:
        assert data.save(tmp_path / "again.zip").read_bytes() == large.read_bytes()


def test_state_of_an_upload_is_private_and_goes_with_it(slow: Proxy, large: Path, own_folders: Path) -> None:
    states = own_folders / "data" / "uploads"
    kill_upload(large, "kaggle:haversack/private-state", slow)
    assert [path.stat().st_mode & 0o777 for path in states.iterdir()] == [0o600]
    put(large, "kaggle:haversack/private-state", hub=slow.url)
    assert not list(states.iterdir())


def test_competition_is_a_data_set(hub: RunningHub, archive: Path, files: dict[str, bytes]) -> None:
    name = f"kaggle:c/competition-{uuid.uuid4().hex[:8]}"
    assert put(archive, name).source == name
    with dataset(f"{name}/images") as data:
        assert data.read("3.png") == files["images/3.png"]
        assert "version" not in data.info()
        assert data.info()["page"] == f"{hub.url}/competitions/{name.removeprefix('kaggle:c/')}"


def test_rules_that_are_not_accepted_are_told_with_the_link(hub: RunningHub, archive: Path) -> None:
    name = f"competition-{uuid.uuid4().hex[:8]}"
    put(archive, f"kaggle:c/{name}")
    (hub.root / "kaggle" / "c" / name / "RULES").touch()
    said = f"not accepted for the account signed in by HAVERSACK_TOKEN\\. .*{hub.url}/competitions/{name}/rules"
    with pytest.raises(RulesNotAccepted, match=said):
        dataset(f"kaggle:c/{name}")


def answering(status: int, message: str, **headers: str) -> http.server.ThreadingHTTPServer:
    """A server that answers every call with one error, as Kaggle words it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.dumps({"code": status, "message": message}).encode()
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *about: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (
            403,
            Forbidden,
            r"is private or does not exist; the account signed in by KAGGLE_USERNAME and KAGGLE_KEY cannot",
        ),
        (404, NotFound, r"There is no data set a/b on the Kaggle service"),
        (401, SignInError, r"refused the sign-in of KAGGLE_USERNAME and KAGGLE_KEY\. Make a new token at https://"),
        (429, RateLimited, r"reached its rate limit for the account signed in by KAGGLE_USERNAME and KAGGLE_KEY"),
    ],
)
def test_refusals_of_a_mirror_are_told_with_the_sign_in_and_the_page(
    monkeypatch: pytest.MonkeyPatch, status: int, kind: type[Exception], said: str
) -> None:
    with answering(status, "Permission denied", Retry_After="3600") as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("HAVERSACK_KAGGLE", url)
        monkeypatch.setenv("KAGGLE_USERNAME", "me")
        monkeypatch.setenv("KAGGLE_KEY", "secret-key")
        with pytest.raises(kind, match=said) as raised:
            dataset("kaggle:a/b")
        server.shutdown()
    assert "secret-key" not in str(raised.value)
    assert status == 401 or f"{url}/datasets/a/b" in str(raised.value)


def test_listing_an_archive_never_seen_costs_three_ranges_and_a_hundredth_of_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, log = tmp_path / "many.zip", tmp_path / "calls"
    with zipfile.ZipFile(archive, "w") as out:
        for number in range(1500):
            out.writestr(f"train/class-{number % 10}/{number:06}.png", random.Random(number).randbytes(16_000))
    hub = start_hub(tmp_path / "root", None, "--log", str(log))
    try:
        monkeypatch.setenv("HAVERSACK_TOKEN", hub.token)
        put(archive, "kaggle:haversack/many", hub=hub.url)
        before = len(calls.lines(log))
        program = ["haversack", "data", "ls", "kaggle:haversack/many", "--hub", hub.url]
        done = subprocess.run([sys.executable, "-m", *program], capture_output=True, text=True, check=True, timeout=60)
        assert len(done.stdout.splitlines()) == 1500
        ranges = [line for line in calls.lines(log)[before:] if line["route"] == "storage"]
    finally:
        hub.process.terminate()
        hub.process.wait(60)
    assert len(ranges) <= 3
    assert sum(line["sent"] for line in ranges) <= archive.stat().st_size / 100
