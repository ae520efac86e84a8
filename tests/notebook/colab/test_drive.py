"""The drive in a job: `google.colab.drive`, from mount to the job's end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from haversack.notebook.colab import drive
from tests.conftest import RunningHub
from tests.drive.conftest import kill
from tests.notebook import notebooks
from tests.notebook.conftest import Run
from tests.notebook.job.test_job import start

MOUNT = "from google.colab import drive\ndrive.mount('/content/drive')"


def mounted_here() -> list[str]:
    """What the registry knows as mounted."""
    return [path.name for path in (Path(os.environ["HAVERSACK_DATA"]) / "mounts").glob("*.json")]


def test_what_is_written_is_on_the_drive_when_the_job_ends(run: Run, own_hub: RunningHub) -> None:
    report = run(MOUNT, "open('/content/drive/My Drive/a.txt', 'w').write('kept')", "!cat /content/drive/MyDrive/a.txt")
    assert notebooks.text(report.output, 0) == "Mounted at /content/drive\n"
    assert notebooks.text(report.output, 2) == "kept"
    assert (own_hub.my_drive / "a.txt").read_text() == "kept"
    assert report.drive == f"the hub at {own_hub.url}"
    assert mounted_here() == []


def test_it_is_unmounted_also_when_the_kernel_is_killed(run: Run, own_hub: RunningHub) -> None:
    die = "open('/content/drive/My Drive/a.txt', 'w').write('kept')\nimport os\nos.kill(os.getpid(), 9)"
    report = run(MOUNT, die, "1")
    assert report.status == "failed"
    assert (own_hub.my_drive / "a.txt").read_text() == "kept"
    assert mounted_here() == []


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")
def test_it_is_mounted_inside_bubblewrap(run: Run, own_hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_CONTENT", "bubblewrap")
    write = "open('/content/drive/My Drive/a.txt', 'w').write('kept')"
    report = run(MOUNT, write, "import os\nos.path.ismount('/content/drive')")
    assert report.content == "bubblewrap"
    assert notebooks.text(report.output, 2) == "True"
    assert (own_hub.my_drive / "a.txt").read_text() == "kept"
    assert mounted_here() == []


def test_mounting_and_unmounting_say_what_colab_says(run: Run, own_hub: RunningHub) -> None:
    report = run(
        MOUNT,
        "drive.mount('/content/drive')",
        "drive.mount('/content/drive', force_remount=True)",
        "drive.flush_and_unmount()\nimport os\nos.path.exists('/content/drive/My Drive')",
        "drive.flush_and_unmount()",
        "!mkdir full && touch full/x && ln -s full link",
        "for point in ('a b', 'link', 'full', 'full/x', 'none/x'):\n"
        "    try:\n        drive.mount('/content/' + point)\n"
        "    except ValueError as error:\n        print(error)",
        "from google.colab import auth\nauth.authenticate_user()",
    )
    assert [notebooks.text(report.output, index) for index in (1, 2, 3, 4)] == [
        "Drive already mounted at /content/drive; to attempt to forcibly remount, "
        'call drive.mount("/content/drive", force_remount=True).\n',
        "Mounted at /content/drive\n",
        "False",
        "Drive not mounted, so nothing to flush and unmount.\n",
    ]
    assert notebooks.text(report.output, 6).splitlines() == [
        "Mountpoint must not contain a space.",
        "Mountpoint must not be a symlink",
        "Mountpoint must not already contain files",
        "Mountpoint must either be a directory or not exist",
        "Mountpoint must be in a directory that exists",
    ]
    assert report.status == "done", report.error


@pytest.mark.parametrize("again", [drive.flush_and_unmount, lambda: drive.mount("drive")])
def test_a_mount_whose_process_died_is_no_obstacle(
    own_hub: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: Callable[[], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    drive.mount("drive")
    Path("drive/My Drive/a.txt").write_text("kept")
    kill(tmp_path / "drive")
    again()
    drive.flush_and_unmount()
    assert (own_hub.my_drive / "a.txt").read_text() == "kept"
    assert mounted_here() == []


def test_two_jobs_mount_the_drive_at_once(tmp_path: Path, own_hub: RunningHub) -> None:
    jobs = []
    for name in ("a", "b"):
        write = f"open('/content/drive/My Drive/{name}.txt', 'w').write('{name}')\nimport time\ntime.sleep(1)"
        notebook = notebooks.write(tmp_path / f"{name}.ipynb", MOUNT, write)
        jobs.append(start(notebook, "-o", str(tmp_path / f"{name}.out.ipynb")))
    assert [process.wait(300) for process in jobs] == [0, 0]
    assert [(own_hub.my_drive / f"{name}.txt").read_text() for name in "ab"] == ["a", "b"]
    assert mounted_here() == []


def test_the_embedded_drive_works_without_fuse(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_FUSE", "off")
    report = run(MOUNT, "open('/content/drive/My Drive/a.txt', 'w').write('kept')", hub="embedded")
    assert report.status == "done", report.error
    assert (Path(os.environ["HAVERSACK_DATA"]) / "hub" / "My Drive" / "a.txt").read_text() == "kept"


def test_what_a_killed_command_left_mounted_goes_with_the_next_job(
    tmp_path: Path, own_hub: RunningHub, run: Run
) -> None:
    begun = tmp_path / "begun"
    notebook = notebooks.write(tmp_path / "left.ipynb", MOUNT, f"!echo x > {begun}; sleep 60")
    process = start(notebook, "-o", str(tmp_path / "left.out.ipynb"))
    while not begun.exists():
        assert process.poll() is None
    process.kill()
    process.communicate()
    assert len(mounted_here()) == 1
    run("1")
    assert mounted_here() == []


def test_nobody_signed_in_is_an_error_of_colabs(run: Run) -> None:
    hub = "%env HAVERSACK_HUB http://127.0.0.1:9"
    assert "AuthorizationError" in str(run(hub, "from google.colab import auth\nauth.authenticate_user()").failure)
