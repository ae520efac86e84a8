"""Kaggle's API as its own command and kagglehub use it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from haversack.datasets.source import dataset
from haversack.hub.signin import KAGGLE_USERNAME, SignIn
from tests.conftest import RunningHub

from .conftest import Reply, send

KAGGLE = Path(sys.executable).with_name("kaggle")
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(hub: RunningHub, own_folders: Path) -> dict[str, str]:
    """What leads Kaggle's clients to the hub, signed in with its key."""
    file = own_folders / ".kaggle" / "kaggle.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"username": KAGGLE_USERNAME, "key": SignIn(hub.token).kaggle_key}))
    file.chmod(0o600)
    return {**os.environ, "KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": hub.url, "no_proxy": ""}


@pytest.fixture
def kaggle(environment: dict[str, str], tmp_path: Path) -> Command:
    def run(*arguments: str | Path, fails: bool = False) -> subprocess.CompletedProcess[str]:
        whole = arguments[0] in ("competitions", "kernels")
        command = [KAGGLE, *([] if whole else ["datasets"]), *arguments]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder ready for `kaggle datasets create`, under a name of its own."""
    folder = tmp_path / "source"
    (folder / "images").mkdir(parents=True)
    (folder / "table.csv").write_text("a,b\n1,2\n")
    (folder / "noise.bin").write_bytes(os.urandom(700_000))
    (folder / "images" / "one.txt").write_text("deep")
    slug = f"set-{uuid.uuid4().hex}"
    about = {"title": slug[:40], "id": f"haversack/{slug}", "licenses": [{"name": "CC0-1.0"}]}
    (folder / "dataset-metadata.json").write_text(json.dumps(about))
    return folder


def ref_of(source: Path) -> str:
    return str(json.loads((source / "dataset-metadata.json").read_text())["id"])


def call(hub: RunningHub, method: str, body: dict[str, Any], **more: Any) -> Reply:
    return send(hub, "POST", f"/api/v1/datasets.DatasetApiService/{method}", json.dumps(body), **more)


def publish(hub: RunningHub, files: dict[str, bytes], **about: Any) -> dict[str, str]:
    """A data set made without the official command; what names it in calls."""
    slug = f"set-{uuid.uuid4().hex}"
    tokens = [{"token": upload(hub, name, content)} for name, content in files.items()]
    body = {"ownerSlug": "haversack", "slug": slug, "title": slug, "files": tokens, **about}
    assert call(hub, "CreateDataset", body).json()["status"] == "Ok"
    return {"ownerSlug": str(body["ownerSlug"]), "datasetSlug": str(body["slug"])}


def upload(hub: RunningHub, name: str, content: bytes) -> str:
    body = {"type": "DATASET", "name": name, "contentLength": len(content)}
    answer = send(hub, "POST", "/api/v1/blobs.BlobApiService/StartBlobUpload", json.dumps(body)).json()
    assert send(hub, "PUT", urlsplit(answer["createUrl"]).path, content, signed_in=False).status == 200
    return answer["token"]


def link(hub: RunningHub, name: dict[str, Any]) -> str:
    """The signed link of a download, as a path."""
    reply = call(hub, "DownloadDataset", name)
    assert reply.status == 302
    location = urlsplit(reply.headers["Location"])
    assert f"{location.scheme}://{location.netloc}" == hub.url
    return f"{location.path}?{location.query}"


def zipped(**files: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/"), text)
    return packed.getvalue()


def test_a_set_is_created_and_fetched_by_the_official_command(kaggle: Command, source: Path, tmp_path: Path) -> None:
    kaggle("create", "-p", source, "--dir-mode", "zip")
    kaggle("download", "-d", ref_of(source), "-p", tmp_path / "got", "--unzip")
    for name in ("table.csv", "noise.bin", "images/one.txt"):
        assert (tmp_path / "got" / name).read_bytes() == (source / name).read_bytes()


def test_the_official_command_lists_names_and_describes(kaggle: Command, hub: RunningHub, tmp_path: Path) -> None:
    name = publish(hub, {"table.csv": b"a,b"}, licenseName="CC0-1.0")
    ref = f"haversack/{name['datasetSlug']}"
    assert kaggle("status", ref).stdout.strip() == "ready"
    assert "table.csv" in kaggle("files", ref).stdout
    assert ref in kaggle("list", "-s", ref.split("/")[1]).stdout
    kaggle("metadata", ref, "-p", tmp_path / "about")
    assert "CC0-1.0" in (tmp_path / "about" / "dataset-metadata.json").read_text()


def test_a_version_never_changes_when_the_next_is_published(kaggle: Command, hub: RunningHub, source: Path) -> None:
    name = publish(hub, {"table.csv": b"a,b", "other": b"x"}, slug=ref_of(source).split("/")[1])
    kaggle("version", "-p", source, "-m", "other columns")
    old, new = {**name, "datasetVersionNumber": 1}, {**name, "fileName": "table.csv"}
    assert send(hub, "GET", link(hub, new), signed_in=False).body == b"a,b\n1,2\n"
    assert send(hub, "GET", link(hub, {**old, "fileName": "table.csv"}), signed_in=False).body == b"a,b"
    assert call(hub, "GetDataset", name).json()["currentVersionNumber"] == 2


def test_one_file_and_the_whole_are_fetched_by_the_official_command(
    kaggle: Command, hub: RunningHub, tmp_path: Path
) -> None:
    name = publish(hub, {"table.csv": b"a,b", "other.bin": b"x"})
    ref = f"haversack/{name['datasetSlug']}"
    kaggle("download", "-d", ref, "-f", "table.csv", "-p", tmp_path / "one")
    kaggle("download", "-d", ref, "-p", tmp_path / "whole")
    assert (tmp_path / "one" / "table.csv").read_bytes() == b"a,b"
    (archive,) = (tmp_path / "whole").iterdir()
    assert sorted(zipfile.ZipFile(archive).namelist()) == ["other.bin", "table.csv"]


def test_a_set_that_is_not_there_is_said_so(kaggle: Command) -> None:
    done = kaggle("download", "-d", "haversack/no-such-set", fails=True)
    assert "There is no data set haversack/no-such-set" in done.stdout + done.stderr


def test_the_hubs_token_signs_in_as_kaggle_token(kaggle: Command, environment: dict[str, str], hub: RunningHub) -> None:
    environment["KAGGLE_API_TOKEN"] = hub.token
    set_name = publish(hub, {"a.txt": b"x"}, isPrivate=True)
    assert kaggle("status", f"haversack/{set_name['datasetSlug']}").stdout.strip() == "ready"


def test_kagglehub_downloads_a_set_and_verifies_it(environment: dict[str, str], hub: RunningHub) -> None:
    name = publish(hub, {"pack.zip": zipped(images__one="1", labels="2")}, isPrivate=True)
    code = f"import kagglehub; print(kagglehub.dataset_download('haversack/{name['datasetSlug']}'))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    assert (folder / "images" / "one").read_text() == "1"


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


UPLOADED_TWICE = """if True:
    import pathlib, sys
    import kagglehub
    name, source = sys.argv[1:]
    for version in "12":
        pathlib.Path(source, "table.csv").write_text(version)
        kagglehub.dataset_upload(name, source, "notes")
    folders = kagglehub.dataset_download(f"{name}/versions/1"), kagglehub.dataset_download(name)
    print(*folders, sep="\\n")
"""


def test_kagglehub_uploads_a_set_and_its_next_version(
    environment: dict[str, str], hub: RunningHub, source: Path, tmp_path: Path
) -> None:
    (source / "dataset-metadata.json").unlink()
    name = f"haversack/set-{uuid.uuid4().hex}"
    program = [sys.executable, "-c", UPLOADED_TWICE, name, source]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = map(Path, done.stdout.splitlines()[-2:])
    assert (first / "table.csv").read_text() == "1"
    with dataset(f"kaggle:{name}") as data:
        assert tree(data.extract(tmp_path / "ours")) == tree(second) == tree(source)


def test_one_archive_is_served_as_it_was_and_listed_by_its_members(hub: RunningHub) -> None:
    packed = zipped(images__one="1", labels="22")
    name = publish(hub, {"pack.zip": packed})
    assert send(hub, "GET", link(hub, name), signed_in=False).body == packed
    files = call(hub, "ListDatasetFiles", name).json()["datasetFiles"]
    assert [(file["name"], file["totalBytes"]) for file in files] == [("images/one", 1), ("labels", 2)]
    member = link(hub, {**name, "fileName": "images/one"})
    assert send(hub, "GET", member, signed_in=False).body == b"1"


def test_files_are_listed_in_pages(hub: RunningHub) -> None:
    name = publish(hub, {f"{number}.txt": b"x" for number in range(5)})
    found, token = [], ""
    while True:
        answer = call(hub, "ListDatasetFiles", {**name, "pageSize": 2, "pageToken": token}).json()
        found += [file["name"] for file in answer["datasetFiles"]]
        token = answer.get("nextPageToken")
        if not token:
            break
    assert found == [f"{number}.txt" for number in range(5)]


def test_a_stored_file_tells_its_hash_and_serves_ranges(hub: RunningHub) -> None:
    name = publish(hub, {"a b+ü.txt": b"0123456789"})
    target = link(hub, {**name, "fileName": "a b+ü.txt"})
    whole = send(hub, "GET", target, signed_in=False)
    digest = hashlib.md5(b"0123456789").digest()
    assert whole.headers["x-goog-hash"] == f"md5={base64.b64encode(digest).decode()}"
    assert whole.headers["Accept-Ranges"] == "bytes"
    part = send(hub, "GET", target, headers={"Range": "bytes=4-6", "If-Range": whole.headers["ETag"]}, signed_in=False)
    assert (part.status, part.body, part.headers["Content-Range"]) == (206, b"456", "bytes 4-6/10")
    other = send(hub, "GET", target, headers={"Range": "bytes=4-6", "If-Range": '"other"'}, signed_in=False)
    assert (other.status, other.body) == (200, b"0123456789")
    assert send(hub, "GET", target, headers={"Range": "bytes=10-"}, signed_in=False).status == 416


def test_a_link_is_good_for_its_own_file_only_and_expires(hub: RunningHub) -> None:
    name = publish(hub, {"a.txt": b"a", "b.txt": b"b"})
    target = link(hub, {**name, "fileName": "a.txt"})
    assert send(hub, "GET", target.replace("a.txt", "b.txt"), signed_in=False).status == 403
    path, _, query = target.partition("?")
    assert send(hub, "GET", path, signed_in=False).status == 403
    expires = query.split("&")[0].split("=")[1]
    assert send(hub, "GET", target.replace(expires, str(int(expires) + 9)), signed_in=False).status == 403
    signin = SignIn(hub.token)
    past = f"expires=1000&signature={signin._signature(path, '1000')}"
    assert send(hub, "GET", f"{path}?{past}", signed_in=False).status == 403


def test_a_blob_goes_on_where_it_was(hub: RunningHub) -> None:
    body = {"type": "DATASET", "name": "big.bin", "contentLength": 600_000}
    answer = send(hub, "POST", "/api/v1/blobs.BlobApiService/StartBlobUpload", json.dumps(body)).json()
    target = urlsplit(answer["createUrl"]).path
    span = {"Content-Range": "bytes 0-524287/600000"}
    assert send(hub, "PUT", target, b"x" * 524_288, span, signed_in=False).status == 308
    asked = send(hub, "PUT", target, b"", {"Content-Range": "bytes */600000"}, signed_in=False)
    assert (asked.status, asked.headers["Range"]) == (308, "bytes=0-524287")
    rest = {"Content-Range": "bytes 524288-599999/600000"}
    assert send(hub, "PUT", target, b"x" * 75_712, rest, signed_in=False).status == 200


def test_public_sets_are_open_and_private_ones_are_not(hub: RunningHub) -> None:
    public, private = publish(hub, {"a": b"x"}), publish(hub, {"a": b"x"}, isPrivate=True)
    assert call(hub, "GetDataset", public, signed_in=False).status == 200
    assert call(hub, "GetDataset", private, signed_in=False).status == 403
    assert call(hub, "DownloadDataset", private, signed_in=False).status == 403
    assert call(hub, "GetDataset", {**public, "datasetSlug": "nothing"}).status == 404
    assert call(hub, "GetDataset", {**public, "datasetVersionNumber": 7}).status == 404


def test_nobody_publishes_without_signing_in(hub: RunningHub) -> None:
    target = "/api/v1/blobs.BlobApiService/StartBlobUpload"
    assert send(hub, "POST", target, '{"name": "a"}', signed_in=False).status == 403


def test_a_name_is_taken_once(hub: RunningHub) -> None:
    name = publish(hub, {"a": b"x"})
    body = {"ownerSlug": "haversack", "slug": name["datasetSlug"], "files": [{"token": upload(hub, "b", b"y")}]}
    answer = call(hub, "CreateDataset", body)
    assert (answer.status, answer.json()["status"]) == (200, "error")
    assert "already" in answer.json()["error"]


@pytest.mark.parametrize("name", ["../../escape.txt", "/etc/passwd", "a\\b", "..", "x" * 400])
def test_no_uploaded_name_leaves_the_versions_folder(hub: RunningHub, name: str) -> None:
    made = publish(hub, {name: b"x", "other": b"y"})
    folder = hub.root / "kaggle" / "haversack" / made["datasetSlug"] / "1"
    assert len(list(folder.iterdir())) == 2


def test_directories_of_an_upload_are_folders_that_stay_below_the_versions(hub: RunningHub) -> None:
    token = {"token": upload(hub, "a.txt", b"deep")}
    inner = {"name": "../b", "directories": [{"name": "..", "files": [token]}]}
    slug = f"set-{uuid.uuid4().hex}"
    made = call(hub, "CreateDataset", {"ownerSlug": "haversack", "slug": slug, "directories": [inner]}).json()
    assert made["status"] == "Ok"
    assert (hub.root / "kaggle" / "haversack" / slug / "1" / "b" / "__" / "a.txt").read_bytes() == b"deep"


def test_an_archive_with_names_that_leave_its_folder_stays_packed(hub: RunningHub) -> None:
    made = publish(hub, {"bad.zip": zipped(**{"..__..__escape": "x"}), "other": b"y"})
    folder = hub.root / "kaggle" / "haversack" / made["datasetSlug"] / "1"
    assert sorted(path.name for path in folder.iterdir()) == ["bad.zip", "other"]


@pytest.mark.parametrize("file", ["../../../../etc/passwd", "/etc/passwd", "missing", "a\0b", "."])
def test_no_file_outside_a_version_is_served(hub: RunningHub, file: str) -> None:
    name = publish(hub, {"a": b"x", "b": b"y"})
    assert call(hub, "DownloadDataset", {**name, "fileName": file}).status == 404


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("GetDataset", "{", 400),
        ("GetDataset", "[]", 400),
        ("GetDataset", '{"ownerSlug": 5}', 400),
        ("GetDataset", '{"ownerSlug": "\\ud800"}', 400),
        ("ListDatasetFiles", '{"datasetVersionNumber": "x"}', 400),
        ("ListDatasets", '{"pageSize": 0}', 400),
        ("ListDatasets", '{"pageToken": "x"}', 400),
        ("CreateDataset", '{"slug": "../x", "files": []}', 400),
        ("CreateDataset", '{"slug": "nothing-in-it", "files": []}', 400),
        ("CreateDataset", '{"slug": "unknown-token", "files": [{"token": "x"}]}', 400),
        ("DeleteDataset", "{}", 501),
    ],
)
def test_a_bad_call_is_refused_in_kaggles_words(hub: RunningHub, method: str, body: str, status: int) -> None:
    reply = send(hub, "POST", f"/api/v1/datasets.DatasetApiService/{method}", body)
    assert reply.status == status
    assert reply.json()["code"] == status


def test_a_published_sets_address_is_the_hubs_own_page(hub: RunningHub) -> None:
    tokens = [{"token": upload(hub, "a", b"x")}]
    body = {"ownerSlug": "haversack", "slug": f"set-{uuid.uuid4().hex}", "files": tokens}
    url = call(hub, "CreateDataset", body).json()["url"]
    assert url == f"{hub.url}/datasets/haversack/{body['slug']}"
    reply = send(hub, "GET", urlsplit(url).path, signed_in=False)
    assert (reply.status, reply.headers["Location"]) == (302, "/#/data")


@pytest.fixture
def competition(hub: RunningHub) -> str:
    """A competition with two files."""
    name = f"competition-{uuid.uuid4().hex[:8]}"
    publish(hub, {"train.csv": b"a,b\n1,2\n", "test.csv": b"a\n1\n"}, ownerSlug="c", slug=name, isPrivate=True)
    return name


def test_a_competitions_data_is_fetched_by_the_official_command(
    kaggle: Command, competition: str, tmp_path: Path
) -> None:
    assert "train.csv" in kaggle("competitions", "files", competition).stdout
    kaggle("competitions", "download", competition, "-p", tmp_path / "whole")
    with zipfile.ZipFile(tmp_path / "whole" / f"{competition}.zip") as archive:
        assert archive.read("train.csv") == b"a,b\n1,2\n"
    kaggle("competitions", "download", competition, "-f", "test.csv", "-p", tmp_path / "one")
    assert (tmp_path / "one" / "test.csv").read_bytes() == b"a\n1\n"


def test_a_competitions_data_is_fetched_by_kagglehub(environment: dict[str, str], competition: str) -> None:
    code = f"import kagglehub; print(kagglehub.competition_download('{competition}'))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.splitlines()[-1]) / "train.csv").read_bytes() == b"a,b\n1,2\n"


def test_a_competition_whose_rules_are_not_accepted_is_refused(
    kaggle: Command, hub: RunningHub, competition: str
) -> None:
    (hub.root / "kaggle" / "c" / competition / "RULES").touch()
    done = kaggle("competitions", "download", competition, fails=True)
    assert "accept this competition's rules" in done.stdout + done.stderr


def test_a_competition_is_for_who_is_signed_in(hub: RunningHub, competition: str) -> None:
    body = json.dumps({"competitionName": competition})
    target = "/api/v1/competitions.CompetitionApiService/DownloadDataFiles"
    assert send(hub, "POST", target, body).status == 302
    assert send(hub, "POST", target, body, signed_in=False).status == 403


@pytest.mark.parametrize("name", ["nothing-here", "../haversack", ""])
def test_a_competition_that_is_not_there_is_said_so(hub: RunningHub, name: str) -> None:
    target = "/api/v1/competitions.CompetitionApiService/ListDataFiles"
    assert send(hub, "POST", target, json.dumps({"competitionName": name})).status == 404


def test_a_notebook_is_pulled_by_the_official_command(kaggle: Command, hub: RunningHub, tmp_path: Path) -> None:
    name = f"nb-{uuid.uuid4().hex}"
    folder = hub.root / "notebooks" / "somebody"
    folder.mkdir(parents=True, exist_ok=True)
    source = json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    (folder / f"{name}.ipynb").write_text(source)
    kaggle("kernels", "pull", f"somebody/{name}", "-p", tmp_path / "got", "-m")
    assert (tmp_path / "got" / f"{name}.ipynb").read_text() == source
    about = json.loads((tmp_path / "got" / "kernel-metadata.json").read_text())
    assert (about["id"], about["kernel_type"], about["language"]) == (f"somebody/{name}", "notebook", "python")
    kaggle("kernels", "pull", "somebody/else", "-p", tmp_path / "got", fails=True)


@pytest.mark.parametrize(
    ("body", "signed_in", "status"),
    [
        ({"userName": "..", "kernelSlug": "x"}, True, 404),
        ({"userName": "me", "kernelSlug": "../../token"}, True, 404),
        ({"userName": "me", "kernelSlug": "x"}, False, 403),
        ({"userName": 1, "kernelSlug": "x"}, True, 400),
    ],
)
def test_a_notebook_that_is_not_served(hub: RunningHub, body: dict[str, Any], signed_in: bool, status: int) -> None:
    target = "/api/v1/kernels.KernelsApiService/GetKernel"
    assert send(hub, "POST", target, json.dumps(body), signed_in=signed_in).status == status
