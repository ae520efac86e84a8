"""pip in an environment, served by uv: real installations from an index of tiny wheels on this disk."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from haversack.notebook.place import environment, system_packages
from haversack.packages import pip_command
from tests.packages.conftest import PIP, Environment
from tests.packages.wheels import index, project, served, wheel

WAYS = {
    "pip": "pip install tinybase",
    "pip3": "pip3 install tinybase",
    "its path": "$VIRTUAL_ENV/bin/pip install tinybase",
    "a module": "python -m pip install tinybase",
    "a module, glued": "python -mpip install tinybase",
    "a child": 'python -c \'import subprocess as s, sys; s.run([sys.executable, "-m", "pip", "install", "tinybase"])\'',
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_pip_is_served_by_uv(env: Environment, way: str) -> None:
    done = env.run("bash", "-c", WAYS[way])
    assert done.returncode == 0
    assert "Resolved 1 package" in done.stdout
    assert done.stdout.splitlines()[-1] == "Successfully installed tinybase-2.0"
    assert env.version("tinybase") == "2.0"


@pytest.mark.parametrize(
    "command",
    [
        "pip install tinybase",
        "-H -E pip3 install -q tinybase",
        "-u root python3 -m pip install tinybase",
        "-- pip install tinybase",
    ],
)
def test_sudo_reaches_no_other_pip(env: Environment, tmp_path: Path, command: str) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    system_packages.write_commands(commands, env.folder / "bin" / "python")
    done = env.run("bash", "-c", f"sudo {command}", PATH=f"{commands}:{env.variables['PATH']}")
    assert done.returncode == 0, done.stderr
    assert env.version("tinybase") == "2.0"
    assert (env.folder / pip_command.CHANGES).read_text().count("tinybase") == 1


@pytest.mark.parametrize(
    "command", ["python -m pip install tinybase", "python -m haversack.packages.uv_command pip list"]
)
def test_with_a_pip_conf_that_is_none_a_cell_gets_one_sentence(env: Environment, tmp_path: Path, command: str) -> None:
    (tmp_path / "pip.conf").write_text("index-url https://me:word@here/\n")
    done = env.run(*command.split())
    assert done.returncode > 0
    assert len(done.stderr.splitlines()) == 1
    assert "word" not in done.stderr
    assert f"{tmp_path / 'pip.conf'}" in done.stderr


def test_a_process_like_the_kernel_calls_pip_in_itself(env: Environment) -> None:
    (env.packages / "like_a_kernel.py").write_text("import pip\nprint(pip.main(['install', 'tinybase']))")
    done = env.run("python", "-m", "like_a_kernel")
    assert "Resolved 1 package" in done.stdout
    assert done.stdout.endswith("Successfully installed tinybase-2.0\n0\n")


def test_a_new_pip_is_served_as_well(env: Environment) -> None:
    reinstalled = env.pip("install", "--force-reinstall", "pip")
    assert "Successfully installed pip-" in reinstalled.stdout
    assert "Resolved" in env.pip("install", "tinybase").stdout
    assert "Checked 1 package" in env.run("pip", "install", "tinybase").stdout


def test_pip_says_that_it_is_pip(env: Environment) -> None:
    version = PIP.name.split("-")[1]
    assert env.pip("--version").stdout.startswith(f"pip {version} from {env.packages}/pip")
    code = "import pip, sys; print(pip.__version__, [f for f in sys.meta_path if 'haversack' in type(f).__module__])"
    assert env.run("python", "-c", code).stdout == f"{version} []\n"


def test_without_haversack_there_is_pip(env: Environment) -> None:
    (env.packages / "haversack.pth").unlink()
    done = env.pip("install", "tinybase")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Installing collected packages: tinybase" in done.stdout


def test_what_uv_cannot_do_pip_does_without_a_word(env: Environment) -> None:
    done = env.pip("download", "--no-deps", "tinybase")
    assert "Saved ./tinybase-2.0" in done.stdout
    assert "haversack" not in done.stdout
    assert "uv has no `download`" in env.pip("download", "-v", "--no-deps", "tinybase").stdout


def test_an_unknown_option_is_pips_to_report(env: Environment) -> None:
    done = env.pip("install", "--nonsense", "tinybase")
    assert done.returncode == 2
    assert "no such option: --nonsense" in done.stderr


def test_haversack_pip_leaves_all_to_pip(env: Environment) -> None:
    assert "Installing collected packages: tinybase" in env.pip("install", "tinybase", HAVERSACK_PIP="pip").stdout


def test_what_is_there_is_said_as_pip_says_it(env: Environment) -> None:
    env.pip("install", "tinybase==1.0")
    done = env.pip("install", "tinybase", "tinytop==1.0")
    assert done.stdout.splitlines()[-2:] == [
        f"Requirement already satisfied: tinybase in {env.packages} (1.0)",
        "Successfully installed tinytop-1.0",
    ]


def test_an_upgrade_keeps_the_dependencies_that_satisfy(env: Environment) -> None:
    env.pip("install", "tinytop==1.0", "tinybase==1.0")
    done = env.pip("install", "-U", "tinytop")
    assert done.stdout.splitlines()[-1] == "Successfully installed tinytop-2.0"
    assert env.version("tinybase") == "1.0"


def test_quiet_prints_nothing(env: Environment) -> None:
    done = env.pip("install", "-q", "tinybase")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("quiet", [(), ("-q",), ("-qq",)])
def test_a_failure_has_pips_status_and_its_reason(env: Environment, quiet: tuple[str, ...]) -> None:
    done = env.pip("install", *quiet, "tinybase==7")
    assert done.returncode == 1
    assert "there is no version of tinybase==7" in " ".join(done.stderr.split())
    assert done.stdout == ""


def test_a_conflict_is_said_and_installed_all_the_same(env: Environment) -> None:
    env.pip("install", "tinyold")
    done = env.pip("install", "tinybase==2.0")
    assert (done.returncode, env.version("tinybase")) == (0, "2.0")
    assert "ERROR: The package `tinyold` requires `tinybase<2`, but `2.0` is installed" in done.stderr


def test_the_best_version_of_all_indexes_wins(env: Environment, tmp_path: Path) -> None:
    more = index(tmp_path / "index", wheel(tmp_path, "tinybase", "1.5"))
    done = env.pip("install", "tinybase", "--extra-index-url", more)
    assert "Successfully installed tinybase-2.0" in done.stdout


def test_an_index_on_the_command_line_replaces_the_configured_one(env: Environment, tmp_path: Path) -> None:
    other = index(tmp_path / "index", wheel(tmp_path, "tinybase", "1.5"))
    done = env.pip("install", "tinybase", "-i", other)
    assert "Successfully installed tinybase-1.5" in done.stdout


def test_what_a_cell_configures_counts_from_the_next_call_on(env: Environment, tmp_path: Path) -> None:
    other = index(tmp_path / "index", wheel(tmp_path, "tinyother"))
    env.pip("config", "set", "global.extra-index-url", other)
    assert "Successfully installed tinyother-1.0" in env.pip("install", "tinyother").stdout


def test_links_and_constraints(env: Environment, tmp_path: Path) -> None:
    (tmp_path / "my limits.txt").write_text("tinybase<2\n")
    wheel(tmp_path / "wheels", "tinylinked", "1.0", needs=["tinybase"])
    done = env.pip("install", "tinylinked", "-f", str(tmp_path / "wheels"), "-c", str(tmp_path / "my limits.txt"))
    assert "Successfully installed tinybase-1.0 tinylinked-1.0" in done.stdout


def test_into_a_folder(env: Environment, tmp_path: Path) -> None:
    assert env.pip("install", "-t", str(tmp_path / "lib"), "tinytop").returncode == 0
    assert (tmp_path / "lib" / "tinybase").is_dir()
    assert env.version("tinybase") == ""
    assert not (env.folder / pip_command.CHANGES).exists()


def test_a_dry_run_changes_nothing(env: Environment) -> None:
    assert env.pip("install", "--dry-run", "tinybase").stdout.endswith("Would install tinybase-2.0\n")
    assert env.version("tinybase") == ""


def test_a_project_is_built_and_an_editable_one_stays_where_it_is(env: Environment, tmp_path: Path) -> None:
    built = project(tmp_path / "built", "tinybuilt", "1.0", "value = 7")
    edited = project(tmp_path / "edited", "tinyedited", "1.0")
    assert env.pip("install", str(built), "-e", str(edited)).returncode == 0
    (edited / "tinyedited.py").write_text("value = 8")
    done = env.run("python", "-c", "import tinybuilt, tinyedited; print(tinybuilt.value, tinyedited.value)")
    assert done.stdout == "7 8\n"


def test_a_changed_project_is_built_again(env: Environment, tmp_path: Path) -> None:
    folder = project(tmp_path / "built", "tinybuilt", "1.0", "value = 7")
    env.pip("install", str(folder))
    backend = folder / "backend.py"
    backend.write_text(backend.read_text().replace("value = 7", "value = 8"))
    env.pip("install", str(folder))
    assert env.run("python", "-c", "import tinybuilt; print(tinybuilt.value)").stdout == "8\n"


def test_a_repository(env: Environment, tmp_path: Path) -> None:
    folder = project(tmp_path / "repository", "tinybuilt", "1.0", "value = 7")
    as_me = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    for words in (["init", "-q"], ["add", "."], [*as_me, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    done = env.pip("install", f"git+{folder.as_uri()}")
    assert done.stdout.endswith("Successfully installed tinybuilt-1.0\n")


def test_a_build_that_needs_an_installed_module_has_it(env: Environment, tmp_path: Path) -> None:
    folder = project(tmp_path / "built", "tinybuilt", "1.0", "value = 7", needs="tinybase")
    assert env.pip("install", str(folder)).returncode == 1
    env.pip("install", "tinybase")
    done = env.pip("install", str(folder))
    assert done.returncode == 0
    assert "needs tinybase to be built, which is installed" in done.stdout
    assert done.stdout.endswith("Successfully installed tinybuilt-1.0\n")


def test_a_reader_that_leaves_ends_nothing(env: Environment) -> None:
    done = env.run("bash", "-c", "set -o pipefail; pip install tinytop tinybase | true")
    assert (done.returncode, done.stderr) == (0, "")
    assert env.version("tinytop") == "2.0"


def test_uninstalling_asks_nobody(env: Environment) -> None:
    env.pip("install", "tinytop")
    done = env.pip("uninstall", "tinytop", "tinyabsent")
    assert done.returncode == 0
    assert done.stdout.endswith("Successfully uninstalled tinytop-2.0\n")
    assert "Skipping tinyabsent as it is not installed" in done.stderr
    assert env.version("tinytop") == ""


def test_lists(env: Environment) -> None:
    env.pip("install", "-q", "tinybase")
    pip = PIP.name.split("-")[1]
    assert json.loads(env.pip("list", "--format=json").stdout) == [
        {"name": "pip", "version": pip},
        {"name": "tinybase", "version": "2.0"},
    ]
    assert env.pip("freeze").stdout == f"pip=={pip}\ntinybase==2.0\n"
    assert "Location:" in env.pip("show", "tinybase").stdout


def test_changes_are_recorded(env: Environment) -> None:
    env.pip("install", "-q", "tinybase==1.0")
    env.pip("install", "-qU", "tinybase")
    env.pip("install", "-qU", "tinybase")
    lines = (env.folder / pip_command.CHANGES).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"installed": {"tinybase": "1.0"}, "removed": {}},
        {"installed": {"tinybase": "2.0"}, "removed": {"tinybase": "1.0"}},
    ]


def test_an_installed_file_is_not_the_caches(env: Environment) -> None:
    env.pip("install", "tinybase")
    assert (env.packages / "tinybase" / "__init__.py").stat().st_nlink == 1


def test_without_its_registry_the_cache_is_used(env: Environment, wheels: Path) -> None:
    with served(wheels / "simple") as (address, _):
        options = ["--retries", "0", "-i", address]
        assert env.pip("install", *options, "tinybase").returncode == 0
    env.pip("uninstall", "-y", "tinybase")
    done = env.pip("install", *options, "-U", "tinybase")
    assert "The package index cannot be reached" in done.stdout
    assert done.stdout.endswith("Successfully installed tinybase-2.0\n")
    absent = env.pip("install", *options, "tinytop")
    assert absent.returncode == 1


def uv_command(env: Environment, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `uv` as a cell would find it."""
    commands = env.folder.parent / "bin"
    commands.mkdir(exist_ok=True)
    own = environment.Environment(env.folder, env.folder, env.packages.relative_to(env.folder))
    environment.write_pip_by_uv(commands, own)
    return env.run("uv", *words, PATH=f"{commands}:{env.variables['PATH']}")


def test_uv_reaches_the_environment_and_pips_index(env: Environment) -> None:
    done = uv_command(env, "pip", "install", "--system", "tinybase")
    assert done.returncode == 0
    assert env.version("tinybase") == "2.0"
    assert json.loads((env.folder / pip_command.CHANGES).read_text())["installed"] == {"tinybase": "2.0"}


def test_uv_is_uv_in_all_else(env: Environment) -> None:
    assert uv_command(env, "--version").stdout.startswith("uv ")
    assert uv_command(env, "pip", "install", "--nonsense").returncode == 2
    assert uv_command(env, "pip", "freeze").stdout.startswith("pip==")
