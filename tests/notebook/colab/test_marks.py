"""A notebook that asks whether it runs on Colab hears yes: each way to ask, in a real job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import haversack.notebook.colab as colab
from haversack.notebook.colab import marks
from haversack.notebook.record import store
from tests.conftest import RunningHub
from tests.notebook import notebooks
from tests.notebook.colab.test_colab import python
from tests.notebook.conftest import Run

CELLS = {
    "guards": "import os, sys, subprocess\n"
    "print('google.colab' in sys.modules, 'google.colab' in str(get_ipython()),"
    " any(k.startswith('COLAB_') for k in os.environ), os.path.exists('/content/sample_data'))",
    "package": "import google.colab\nprint(google.colab.__version__, 'drive' in dir(google.colab))",
    "shell command": "!python -c \"import google.colab; print('in a subprocess too')\"",
    "subprocess": "subprocess.run([sys.executable, '-c', 'import sys; print(\"google.colab\" in sys.modules);"
    "from google.colab import drive; print(drive.mount.__name__)'], capture_output=True, text=True)",
    "class": "type(get_ipython()).__module__ + '.' + type(get_ipython()).__name__",
    "not set": "[name for name in ('COLAB_NOTEBOOK_ID', 'COLAB_TPU_ADDR', 'TBE_RUNTIME_ADDR', 'VERTEX_PRODUCT')"
    " if name in os.environ]",
    "place": "from haversack import place\nplace.here()",
    "libraries": "import jax, kagglehub, rich\nfrom jax._src.debugger import colab_lib\ncolab_lib.IS_COLAB_ENABLED",
    "notebook": "from google.colab import _message\n"
    "len(_message.blocking_request('get_ipynb', request='', timeout_sec=60)['ipynb']['cells'])",
    "other request": "print(_message.blocking_request('request_auth', timeout_sec=None))",
    "widgets": "from google.colab import output\noutput.enable_custom_widget_manager()\noutput.no_vertical_scroll()",
    "extension": "%load_ext google.colab.data_table\nfrom google.colab import data_table\n"
    "data_table.enable_dataframe_formatter()",
    "tabs": "from google.colab import widgets\nwith widgets.TabBar(['one', 'two']).output_to(0):\n    print('inside')",
    "port": "from google.colab.output import eval_js\nprint(eval_js('google.colab.kernel.proxyPort(5000)'))",
}


@pytest.fixture(scope="module")
def output(run_once: Run) -> str:
    report = run_once(*CELLS.values())
    assert report.status == "done", report.error
    return report.output


def shown(output: str, cell: str) -> str:
    return notebooks.text(output, list(CELLS).index(cell))


def test_every_guard_says_yes(output: str) -> None:
    assert shown(output, "guards") == "True True True True\n"


def test_the_package_has_a_version_and_its_modules(output: str) -> None:
    assert shown(output, "package") == f"{colab.__version__} True\n"


def test_processes_that_cells_start_can_import_it(output: str) -> None:
    assert shown(output, "shell command").split() == ["in", "a", "subprocess", "too"]
    assert r"stdout='False\nmount\n', stderr=''" in shown(output, "subprocess")


def test_the_shells_class_keeps_its_name(output: str) -> None:
    assert shown(output, "class") == "'ipykernel.zmqshell.ZMQInteractiveShell'"


def test_what_colabs_own_services_read_is_not_set(output: str) -> None:
    assert shown(output, "not set") == "[]"


def test_haversack_itself_knows_better(output: str) -> None:
    assert shown(output, "place") == "'notebook'"


def test_libraries_that_ask_can_be_imported(output: str) -> None:
    assert shown(output, "libraries").endswith("False")


def test_the_notebook_can_be_read_and_other_requests_get_no_answer(output: str) -> None:
    assert shown(output, "notebook") == str(len(CELLS))
    assert shown(output, "other request") == "None\n"


def test_the_notebook_has_the_name_that_its_store_uses() -> None:
    assert colab._message._NOTEBOOK == store.NOTEBOOK


def test_what_is_only_cosmetic_passes(output: str) -> None:
    assert shown(output, "widgets") == shown(output, "extension") == ""
    assert shown(output, "tabs") == "inside\n"
    assert shown(output, "port") == "http://localhost:5000/\n"


def test_a_guarded_mount_is_made(run: Run, own_hub: RunningHub) -> None:
    report = run(
        "import sys\nIN_COLAB = 'google.colab' in sys.modules\nprint(IN_COLAB)\n"
        "if IN_COLAB:\n    from google.colab import drive\n    drive.mount('/content/drive')\n"
        "    base = '/content/drive/MyDrive'\nelse:\n    base = '.'",
        "open(base + '/result.txt', 'w').write('kept')",
    )
    assert report.status == "done", report.error
    assert notebooks.text(report.output, 0) == "True\nMounted at /content/drive\n"
    assert (own_hub.my_drive / "result.txt").read_text() == "kept"


def test_kagglehub_in_a_job_uses_the_users_sign_in(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "ada")
    monkeypatch.setenv("KAGGLE_KEY", "0123456789abcdef0123456789abcdef")
    report = run("import kagglehub.config\nkagglehub.config.get_kaggle_credentials().username")
    assert notebooks.text(report.output, 0).endswith("'ada'")


def test_a_gpu_counts_only_if_cuda_may_see_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidiactl").touch()
    assert not marks.has_gpu(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert marks.has_gpu(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert not marks.has_gpu(tmp_path)


def test_outside_a_job_the_extension_sets_no_marks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = (
        "from IPython.core.interactiveshell import InteractiveShell\nimport json, os, sys\n"
        "shell = InteractiveShell.instance()\nshell.extension_manager.load_extension('haversack.notebook')\n"
        "print(json.dumps(['google.colab' in sys.modules, 'google.colab' in str(shell),"
        " any(name.startswith('COLAB_') for name in os.environ), os.path.exists('sample_data')]))"
    )
    monkeypatch.delenv("HAVERSACK_JOB", raising=False)
    monkeypatch.chdir(tmp_path)
    assert json.loads(python(code)) == [False] * 4
