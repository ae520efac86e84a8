"""`google.colab` on this machine: how it is found, and what its modules do in a job."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import haversack.notebook.colab as colab
from tests.notebook import notebooks
from tests.notebook.conftest import Run

INSTALL = "from haversack.notebook.colab import finder; finder.install()\n"


def python(code: str, *path: Path) -> str:
    """What `code` prints in a Python of its own that sees the folders of `path` first."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_it_is_found_where_nobody_has_it() -> None:
    code = INSTALL + "import google.colab.errors\nfrom google.colab import files\nprint(google.colab.errors.Error)"
    assert python(code) == "<class 'haversack.notebook.colab.errors.Error'>\n"


def test_without_the_extension_there_is_none() -> None:
    code = "import haversack, importlib.util\nprint(importlib.util.find_spec('google.colab'))"
    assert python(code) == "None\n"


def test_the_genuine_one_wins(tmp_path: Path) -> None:
    (tmp_path / "google" / "colab").mkdir(parents=True)
    (tmp_path / "google" / "colab" / "__init__.py").write_text("genuine = True")
    assert python(INSTALL + "import google.colab\nprint(google.colab.genuine)", tmp_path) == "True\n"


def test_other_google_packages_work_beside_it() -> None:
    code = INSTALL + "import google.colab.files, google.auth, google.oauth2.credentials\nprint(google.auth.__name__)"
    assert python(code) == "google.auth\n"


def test_other_google_packages_may_be_imported_before() -> None:
    code = (
        "import google.auth\n"
        + INSTALL
        + "from google.colab import drive\nimport google.oauth2.credentials\nprint(drive)"
    )
    assert "haversack/notebook/colab/drive.py" in python(code)


def test_a_google_package_may_be_installed_after(tmp_path: Path) -> None:
    code = f"""
    {INSTALL.strip()}
    import sys, importlib, pathlib
    import google.colab.files
    folder = pathlib.Path({str(tmp_path)!r}) / "google" / "later"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("there = True")
    importlib.invalidate_caches()
    import google.later
    print(google.later.there)
    """
    assert python(code, tmp_path) == "True\n"


def test_a_legacy_google_init_does_not_hide_it(tmp_path: Path) -> None:
    (tmp_path / "google").mkdir()
    (tmp_path / "google" / "__init__.py").write_text("__path__ = __import__('pkgutil').extend_path(__path__, __name__)")
    assert python(INSTALL + "from google.colab import files\nprint(files.upload.__name__)", tmp_path) == "upload\n"


def test_a_module_has_one_identity() -> None:
    code = (
        INSTALL + "import google.colab.files as a\nfrom google.colab import files as b\nprint(a is b, a.__spec__.name)"
    )
    assert python(code) == "True haversack.notebook.colab.files\n"


def test_it_has_a_version_and_lists_its_modules() -> None:
    code = INSTALL + "import google.colab\nprint(google.colab.__version__, 'drive' in dir(google.colab))"
    assert python(code) == f"{colab.__version__} True\n"


def test_the_finder_alone_sets_no_variables() -> None:
    code = INSTALL + "import os, google.colab\nprint([name for name in os.environ if name.startswith('COLAB')])"
    assert python(code) == "[]\n"


@pytest.mark.parametrize("name", colab.__all__)
def test_public_names_are_all_there_is(name: str) -> None:
    """Upstream's rule: what a module imports is underscore-prefixed, every public name stands in `__all__`."""
    module = getattr(colab, name)
    public = {each for each in vars(module) if not each.startswith("_")} - {"annotations"}
    assert public == set(module.__all__)


def test_no_wheel_would_overwrite_the_genuine_package() -> None:
    root = Path(colab.__file__).parents[3]
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False).stdout
    assert not [path for path in listed.splitlines() if path.startswith("google/") or path.endswith(".pth")]


@pytest.fixture(scope="module")
def output(run_once: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A notebook that used what Colab offers; each test below looks at one of its cells."""
    secrets = tmp_path_factory.mktemp("secrets") / "secrets.toml"
    secrets.write_text('TOKEN = "value-of-the-file"')
    secrets.chmod(0o600)
    cells = {
        "import": "import numpy as np\nfrom google.colab import output, runtime, userdata\n"
        "from google.colab.patches import cv2_imshow, cv_imshow",
        "secret": "len(userdata.get('TOKEN'))",
        "no secret": "userdata.get('NONE')",
        "colour": "cv2_imshow(np.full((4, 4, 3), (255, 0, 0), 'uint8'))",
        "grey": "cv_imshow(np.zeros((4, 4)))",
        "page": "output.eval_js('1')",
        "clear": "print('x'); output.clear(); print('y')",
        "line": "%shell echo one; echo two >&2",
        "result": "result = %shell echo one; read answer; echo $answer; exit 0\n(result.returncode, result.output)",
        "version": "%tensorflow_version 2.x",
        "uv": "%uv --version",
        "cell": "%%shell\necho three\nexit 3",
    }
    CELLS[:] = cells
    tags = {index: ["raises-exception"] for index in range(len(cells))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAVERSACK_SECRETS", str(secrets))
        return run_once(*cells.values(), tags=tags).output


CELLS: list[str] = []
MISSING_SECRET = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(colors="nocolor")
shell.run_line_magic("load_ext", "haversack.notebook")
shell.run_cell("from google.colab import userdata\\nuserdata.get('NONE')")
"""


def shown(output: str, cell: str) -> str:
    return notebooks.text(output, CELLS.index(cell))


def test_userdata_comes_from_a_file_of_the_users(output: str) -> None:
    assert shown(output, "secret") == "17"


@pytest.mark.parametrize("shell", ["job", "any other"])
def test_a_missing_secret_says_where_to_put_it_and_nothing_else(output: str, shell: str) -> None:
    text = shown(output, "no secret") if shell == "job" else python(MISSING_SECRET).strip()
    assert text.startswith(
        "SecretNotFoundError: Secret NONE does not exist. Store it with `haversack secrets set NONE`, o"
    )
    assert text.endswith("variable HAVERSACK_SECRET_NONE.")
    assert "\n" not in text


def test_a_secrets_file_that_others_may_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = tmp_path / "secrets.toml"
    secrets.write_text('TOKEN = "value-of-the-file"')
    secrets.chmod(0o644)
    monkeypatch.setenv("HAVERSACK_SECRETS", str(secrets))
    with pytest.raises(colab.userdata.NotebookAccessError, match="chmod 600"):
        colab.userdata.get("TOKEN")


@pytest.mark.parametrize("cell", ["colour", "grey"])
def test_images_are_shown(output: str, cell: str) -> None:
    assert "image/png" in notebooks.read(output).cells[CELLS.index(cell)].outputs[0].data


@pytest.mark.parametrize(
    ("cell", "said"),
    [("page", "no Colab page is open")],
)
def test_what_needs_colab_itself_says_so(output: str, cell: str, said: str) -> None:
    assert said in shown(output, cell)


def test_outside_a_job_there_is_no_runtime_to_release() -> None:
    with pytest.raises(colab.errors.RuntimeManagementError, match="haversack run"):
        colab.runtime.unassign()


def test_output_is_cleared(output: str) -> None:
    assert shown(output, "clear") == "y\n"


def test_the_shell_magic_shows_output(output: str) -> None:
    assert shown(output, "line") == "one\ntwo\n"


def test_the_shell_magic_has_a_result_and_an_empty_standard_input(output: str) -> None:
    assert shown(output, "result") == "one\n\n(0, 'one\\n\\n')"


def test_the_shell_magic_raises_for_a_failing_command(output: str) -> None:
    assert shown(output, "cell").startswith("three\n")
    assert "CalledProcessError" in shown(output, "cell")


def test_uv_is_the_command_and_no_module(output: str) -> None:
    assert shown(output, "uv").startswith("uv ")


def test_choosing_tensorflow_says_what_to_do_instead(output: str) -> None:
    assert "%pip install tensorflow" in shown(output, "version")
