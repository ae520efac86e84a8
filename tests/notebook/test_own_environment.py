"""Jobs whose kernel's environment holds what the notebook needs and nothing of haversack's: the clients are apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.datasets.publication import put
from haversack.notebook.place import environment
from tests.conftest import RunningHub
from tests.notebook import environments, notebooks
from tests.notebook.conftest import Run
from tests.notebook.sessions.test_sessions import SLOWLY_AND_QUICKLY

MOUNT = "from google.colab import drive\ndrive.mount('/content/drive')"
CLIENTS = (
    "import sys\nprint(sorted({'aiohttp', 'filelock', 'haversack.credentials', 'haversack.http'} & set(sys.modules)))"
)


def test_the_drive_is_mounted_read_written_and_unmounted(run: Run, in_bare: Path, own_hub: RunningHub) -> None:
    (own_hub.my_drive / "given.txt").write_text("given")
    report = run(
        MOUNT,
        "print(open('/content/drive/My Drive/given.txt').read())",
        "open('/content/drive/My Drive/a.txt', 'w').write('kept')",
        MOUNT,
        "drive.flush_and_unmount()\nimport os\nos.path.exists('/content/drive/My Drive')",
        "drive.flush_and_unmount()",
        "from google.colab import auth\nauth.authenticate_user()",
        "drive.mount('/content/a b')",
    )
    assert notebooks.text(report.output, 0) == "Mounted at /content/drive\n"
    assert notebooks.text(report.output, 1) == "given\n"
    assert notebooks.text(report.output, 3).startswith("Drive already mounted at /content/drive")
    assert (own_hub.my_drive / "a.txt").read_text() == "kept"
    assert [notebooks.text(report.output, index) for index in (4, 5, 6)] == [
        "False",
        "Drive not mounted, so nothing to flush and unmount.\n",
        "Signed in to the hub, for drive.mount. Google's own services need: haversack login google\n",
    ]
    assert report.drive == f"the hub at {own_hub.url}"
    assert "MountpointInvalid: Mountpoint must not contain a space." in str(report.failure)
    assert own_hub.token not in Path(report.output).read_text()


def test_no_client_is_imported_in_the_kernel(run: Run, in_bare: Path, own_hub: RunningHub) -> None:
    report = run(MOUNT, "drive.flush_and_unmount()", CLIENTS)
    assert notebooks.text(report.output, 2) == "[]\n"


def test_the_embedded_drive_is_linked_without_fuse(
    run: Run, in_bare: Path, own_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAVERSACK_FUSE", "off")
    report = run(MOUNT, "open('/content/drive/My Drive/a.txt', 'w').write('kept')", hub="embedded")
    assert report.status == "done", report.error
    assert (own_folders / "data" / "hub" / "My Drive" / "a.txt").read_text() == "kept"


def test_a_drive_that_cannot_be_reached_is_colabs_error(run: Run, in_bare: Path) -> None:
    report = run("%env HAVERSACK_HUB http://127.0.0.1:9\n%env HAVERSACK_TOKEN x" + "x" * 30, MOUNT)
    assert "ValueError: mount failed: The hub" in str(report.failure)


def test_files_are_uploaded_and_downloaded(run: Run, in_bare: Path, tmp_path: Path) -> None:
    given = tmp_path / "given.txt"
    given.write_text("given")
    report = run(
        "from google.colab import files\nprint(files.upload())", "files.download('given.txt')", uploads=[given]
    )
    assert report.status == "done", report.error
    assert [Path(path).read_text() for path in report.downloads] == ["given"]


def test_the_kaggle_command_reaches_the_named_hub(
    run: Run, own_hub: RunningHub, tmp_path: Path, in_bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "labels.csv").write_text("a,1\n")
    put(tmp_path / "files", "kaggle:me/small")
    report = run(
        "!kaggle --version",
        "!pip install -q kaggle six",  # kaggle imports six and does not ask for it
        "!kaggle datasets download -d me/small --unzip",
        "!cat labels.csv",
        "!haversack --version; which haversack",
    )
    assert "Install it in an earlier cell: !pip install -q kaggle" in notebooks.text(report.output, 0)
    assert notebooks.text(report.output, 3).split() == ["a,1"], notebooks.text(report.output, 2)
    assert notebooks.text(report.output, 4).split()[-1] == f"{report.job}/bin/haversack"


def test_a_killed_training_is_resumed_exactly_from_the_drive(
    run: Run, own_folders: Path, in_keras: Path, own_hub: RunningHub, tmp_path: Path
) -> None:
    """The first session is killed inside an epoch, and the second has another disk."""
    (tmp_path / "epochs.txt").write_text("30")
    another_disk = (
        "import os, shutil\n"
        f"begun, runs = {str(tmp_path / 'begun')!r}, {str(own_folders / 'data' / 'runs')!r}\n"
        "if os.path.exists(begun): shutil.rmtree(runs)\n"
        "open(begun, 'w').close()"
    )
    report = run(another_disk, *SLOWLY_AND_QUICKLY, CLIENTS, uploads=[tmp_path / "epochs.txt"], rehearse=True)
    assert (report.status, report.sessions) == ("done", 2), report.error
    resumed, whole = (notebooks.text(report.output, index).splitlines() for index in (2, 3))
    assert any("resumed at" in line for line in resumed), resumed
    assert resumed[-1] == whole[-1]
    assert notebooks.text(report.output, 4) == "[]\n"
    assert list(own_hub.my_drive.rglob("*.safetensors")) == []
    assert not [notice for notice in report.notices if "checkpoints" in notice]


def test_what_a_notebook_pins_is_what_it_gets(run: Run, in_bare: Path, own_hub: RunningHub) -> None:
    report = run(
        "!pip install -q numpy==1.26.4 typer==0.9.0 ipython==7.34.0 fsspec==2023.1.0; pip check",
        "import fsspec, numpy, typer\nprint(numpy.__version__, typer.__version__, fsspec.__version__)",
        "!python -c 'import IPython, fsspec; print(IPython.__version__, fsspec.__version__)'",
        MOUNT,
    )
    assert report.status == "done", report.error
    # In a job pip is served by uv and a note follows; here the environment's own pip is.
    assert notebooks.text(report.output, 0).startswith("No broken requirements found.")
    assert notebooks.text(report.output, 1) == "1.26.4 0.9.0 2023.1.0\n"
    assert notebooks.text(report.output, 2).split() == ["7.34.0", "2023.1.0"]
    assert notebooks.text(report.output, 3) == "Mounted at /content/drive\n"


@pytest.fixture(scope="module")
def old_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environments.make(tmp_path_factory.mktemp("old") / "env", *environments.OLD)


def test_an_old_ipykernel_runs_a_notebook_with_guards(
    run: Run, old_environment: Path, monkeypatch: pytest.MonkeyPatch, own_hub: RunningHub
) -> None:
    monkeypatch.setattr(environment, "create", lambda folder: environments.adopted_copy(old_environment, folder))
    report = run(
        "import sys, IPython, ipykernel\nprint(IPython.__version__, ipykernel.__version__)",
        "print('google.colab' in sys.modules, 'google.colab' in str(get_ipython()))",
        "try:\n    import google.colab\n    print('on Colab')\nexcept ImportError:\n    print('elsewhere')",
        "!python -c 'import google.colab; print(1)'; false",
        MOUNT,
        "%%shell\necho done",
        "import os\nopen('/content/drive/MyDrive/old.txt', 'w').write('kept')\nos.kill(os.getpid(), 9)",
    )
    assert report.status == "done", report.error
    shown = [notebooks.text(report.output, index).strip() for index in range(6)]
    assert shown == ["7.34.0 6.17.1", "True True", "on Colab", "1", "Mounted at /content/drive", "done"]
    assert (own_hub.my_drive / "old.txt").read_text() == "kept"
    assert [failure["status"] for failure in report.shell_failures] == [1]
