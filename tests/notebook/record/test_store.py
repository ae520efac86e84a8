"""A job's store on the drive of a hub: what a forged record must not reach, and what is missing there."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.errors import InputError
from haversack.notebook.record import store
from haversack.notebook.record.store import JobRecord, JobStore, Options
from haversack.notebook.secrets.masking import Secrets
from tests.conftest import RunningHub


@pytest.fixture
def hub(shared_hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HAVERSACK_TOKEN", shared_hub.token)
    return shared_hub.url


@pytest.mark.parametrize("name", ["../ending.json", "../../other/job.json"])
def test_a_record_on_the_drive_that_names_a_file_outside_its_folder_is_refused(
    tmp_path: Path, hub: str, name: str
) -> None:
    record = JobRecord("/nb.ipynb", "/out.ipynb", None, Options(hub=hub), beside=[name])
    JobStore(tmp_path / "there" / "forged", hub, Secrets(), print).upload_record(record)
    with pytest.raises(InputError, match="outside its folder"):
        store.find_folder(tmp_path / "here", "forged", hub)
    assert not [path for path in (tmp_path / "here").rglob("*") if path.is_file()]


def test_a_file_beside_that_is_missing_is_named(tmp_path: Path) -> None:
    record = JobRecord("/nb.ipynb", "/out.ipynb", None, Options(), beside=["keys.py"])
    with pytest.raises(InputError, match=r"keys\.py was not stored on the drive") as refused:
        store.check_inputs(tmp_path, record)
    assert str(tmp_path / "beside" / "keys.py") in refused.value.next_step
