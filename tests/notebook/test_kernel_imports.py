"""What haversack imports in a kernel: the standard library, IPython, the list, and what the notebook itself imports."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import haversack
from haversack.notebook import colab
from haversack.notebook.place import environment, kernel_path
from tests.notebook import environments

ROOT = Path(haversack.__file__).parent.parent
# What runs in a kernel: the extension, all of google.colab, Kaggle's modules, plain `model.fit`, `haversack.fit`,
# uploads and downloads, and `haversack.environment`.
ENTRANCES = [
    "haversack.notebook",
    "haversack.notebook.environment_call",
    "haversack.notebook.files",
    "haversack.notebook.kernel_launcher",
    "haversack.notebook.plainfit",
    "haversack.notebook.streams",
    "haversack.notebook.clients.filesystem",
    "haversack.training.keras.fit",
    *(f"haversack.notebook.kaggle.{name}" for name in ("attached", "finder", "gcs", "user_secrets", "web_client")),
    *(f"haversack.notebook.colab.{name}" for name in (*colab.__all__, *colab._PRIVATE)),
]
# Reached only where the clients are in the kernel, whose environment is haversack's then.
NOT_APART = {"haversack.notebook.clients.actions", "haversack.notebook.clients.serving"}
# Behind a check that another process does the work, a setting's default that a job's variables replace, or an error.
EXCEPTIONS = {("haversack.settings", "platformdirs")}
FROM_IPYKERNEL = {"packaging"}
FROM_THE_NOTEBOOK = {
    "keras",
    "jax",
    "tensorflow",
    "torch",
    "numpy",
    "ml_dtypes",
    "PIL",
    "IPython",
    "ipykernel",
    "google",
}


def module_path(name: str) -> Path | None:
    """The file of the module `name` of ours; None if there is none, as for a function of a module."""
    base = ROOT.joinpath(*name.split("."))
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


def imported(name: str) -> Iterator[str]:
    """The dotted names that a module of ours imports, also in functions, without those for types only."""
    path = module_path(name)
    assert path is not None, name
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending += node.orelse
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            pending += ast.iter_child_nodes(node)


def reached() -> dict[str, set[str]]:
    """Every module of ours that a kernel can import, with the names that it imports."""
    found: dict[str, set[str]] = {}
    pending = list(ENTRANCES)
    while pending:
        name = pending.pop()
        if name in found or name in NOT_APART:
            continue
        found[name] = set(imported(name))
        for target in found[name]:
            parts = target.split(".")
            if parts[0] == "haversack":
                prefixes = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
                pending += [prefix for prefix in prefixes if module_path(prefix)]
    return found


def test_kernel_modules_import_nothing_else_also_not_lazily() -> None:
    allowed = {*sys.stdlib_module_names, "haversack", *kernel_path.PACKAGES, *FROM_IPYKERNEL, *FROM_THE_NOTEBOOK}
    wrong = sorted(
        f"{module} imports {name}"
        for module, names in reached().items()
        for name in names
        if name.partition(".")[0] not in allowed and (module, name) not in EXCEPTIONS
    )
    assert wrong == []


def test_every_exception_is_needed() -> None:
    assert [one for one in EXCEPTIONS if one[1] not in reached()[one[0]]] == []


def test_the_clients_are_not_reached() -> None:
    """So that this test looks at the right modules: trainings are reached, the drive and HTTP are not."""
    modules = set(reached())
    assert "haversack.training.checkpoints.remote" in modules
    assert not [name for name in modules if name.startswith(("haversack.drive", "haversack.http", "haversack.hub"))]


@pytest.fixture(scope="module")
def kernel(bare_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> environment.Environment:
    return environments.adopted_copy(bare_environment, tmp_path_factory.mktemp("job") / "env")


def answer(kernel: environment.Environment, code: str, **variables: str) -> object:
    """What `code` prints as JSON in the kernel's Python, with the job's own variables."""
    job = kernel.folder.parent
    own = {"HAVERSACK_JOB": str(job), "HAVERSACK_CLIENTS": "process", "HOME": str(job), "PATH": "/usr/bin:/bin"}
    own |= {"HAVERSACK_DATA": f"{job}/d", "HAVERSACK_CACHE": f"{job}/c", "HAVERSACK_SETTINGS": f"{job}/s"}
    done = subprocess.run(
        [kernel.python, "-c", code], capture_output=True, text=True, check=False, env=own | variables, cwd=job
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_nothing_else_of_ours_can_be_imported(kernel: environment.Environment) -> None:
    code = "import json, pkgutil, sys\nprint(json.dumps([sys.path, [one.name for one in pkgutil.iter_modules()]]))"
    path, names = answer(kernel, code)  # type: ignore[misc]
    ours = str(kernel.folder.parent / "kernel-path")
    # After it comes the folder with an empty `google/`, for google.colab.
    assert next(entry for entry in path if "haversack" in entry or entry == ours) == ours
    assert path.index(ours) > path.index(str(next(kernel.folder.glob("lib/*/site-packages"))))
    listed = sorted(name.name for name in Path(ours).iterdir())
    assert listed == sorted(["haversack", *kernel_path.PACKAGES])
    beside = ["aiohttp", "filelock", "keras", "msgspec", "nbclient", "nbformat", "rich", "typer", "numpy", "PIL", "uv"]
    assert [name for name in beside if importlib.util.find_spec(name) is None] == []
    assert set(beside) & set(names) == set()


def test_pip_and_metadata_see_none_of_ours(kernel: environment.Environment) -> None:
    code = (
        "import importlib.metadata as m, json\nprint(json.dumps(sorted(d.metadata['Name'] for d in m.distributions())))"
    )
    assert not {"haversack", *kernel_path.PACKAGES} & set(answer(kernel, code))  # type: ignore[call-overload]


def test_the_extension_loads_and_every_module_of_google_colab_imports(kernel: environment.Environment) -> None:
    code = f"""
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "haversack.notebook")
import importlib
names = {[*colab.__all__, *colab._PRIVATE]!r}
modules = [importlib.import_module("google.colab." + name) for name in names]
from google.colab import files, output, syntax, userdata
open("a.txt", "w").write("x")
files.download("a.txt"); files.view("a.txt"); output.clear()
secret = userdata.get("A")
import haversack.training.location, haversack.notebook.clients.filesystem
print(json.dumps([len(modules), secret, sorted(name for name in sys.modules if name in ("aiohttp", "filelock"))]))
"""
    assert answer(kernel, code, HAVERSACK_SECRET_A="hidden") == [len(colab.__all__) + 1, "hidden", []]


def test_what_needs_haversacks_own_packages_says_how_to_get_them(kernel: environment.Environment) -> None:
    code = """
import haversack, json
try:
    haversack.mount
except ImportError as error:
    print(json.dumps([type(error).__name__, error.what]))
"""
    assert answer(kernel, code) == [
        "ExtraMissing",
        "haversack.mount needs filelock, which the environment of this notebook lacks.",
    ]
