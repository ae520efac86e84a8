"""pip's configuration for uv: read as pip reads it, held against pip itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from haversack.errors import InputError
from haversack.packages.pip_settings import UvSettings, pip_options, uv_settings


class Machine:
    """A HOME with configuration files; the machine's own, in /etc, are as they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prefix = folder / "prefix"
        self.environment = {"HOME": str(folder), "XDG_CONFIG_DIRS": str(folder / "xdg"), "PATH": os.defpath}

    def write(self, path: str, content: str) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return file

    def options(self, **variables: str) -> dict[str, str]:
        return pip_options({**self.environment, **variables}, str(self.prefix))

    def uv(self, **variables: str) -> UvSettings:
        return uv_settings({**self.environment, **variables}, str(self.prefix))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


FILES = ("xdg/pip/pip.conf", ".pip/pip.conf", ".config/pip/pip.conf", "prefix/pip.conf")


@pytest.mark.parametrize("count", range(1, len(FILES) + 1))
def test_of_pips_files_the_later_one_wins(machine: Machine, count: int) -> None:
    for file in FILES[:count]:
        machine.write(file, f"[global]\nindex-url = http://{Path(file).parts[0]}/\n")
    assert machine.options()["index-url"] == f"http://{Path(FILES[count - 1]).parts[0]}/"


def test_the_section_install_wins_over_global_and_a_variable_over_both(machine: Machine) -> None:
    machine.write(".pip/pip.conf", "[install]\nindex-url = http://install/\n[download]\npre = yes\n")
    machine.write(".config/pip/pip.conf", "[global]\nindex-url = http://global/\nIndex_URL_other = x\n")
    assert machine.options()["index-url"] == "http://install/"
    assert machine.options(PIP_INDEX_URL="http://variable/")["index-url"] == "http://variable/"
    assert machine.options(PIP_INDEX_URL="")["index-url"] == "http://install/"
    assert "pre" not in machine.options()


def test_pip_config_file_replaces_the_users_files_and_dev_null_all(machine: Machine) -> None:
    machine.write("xdg/pip/pip.conf", "[global]\nproxy = machine:1\n")
    machine.write(".config/pip/pip.conf", "[global]\nretries = 7\n")
    named = machine.write("named.conf", "[global]\nindex-url = http://named/\n")
    found = machine.options(PIP_CONFIG_FILE=str(named))
    assert (found.get("proxy"), found.get("retries"), found.get("index-url")) == ("machine:1", None, "http://named/")
    assert not {"proxy", "retries"} & machine.options(PIP_CONFIG_FILE="/dev/null").keys()


def test_it_reads_what_pip_reads(machine: Machine) -> None:
    for number, file in enumerate(FILES[:3]):
        machine.write(file, f"[global]\nretries = {number}\ntimeout = 1{number}\n[install]\nproxy = proxy{number}\n")
    variables = {**machine.environment, "PIP_FIND_LINKS": "/one  /two"}
    code = (
        "from pip._internal.commands import create_command\n"
        "found = create_command('install').parser.get_default_values()\n"
        "print(found.retries, int(found.timeout), found.proxy, *found.find_links)"
    )
    theirs = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    ).stdout
    ours = pip_options(variables)
    assert [ours["retries"], ours["timeout"], ours["proxy"], *ours["find-links"].split()] == theirs.split()
    assert theirs.split()[:3] == ["2", "12", "proxy2"]


def test_indexes_and_links_become_variables_of_uv(machine: Machine) -> None:
    machine.write(
        ".config/pip/pip.conf",
        "[global]\nindex-url = https://user:secret@one/simple\nextra-index-url =\n    https://two/simple\n"
        "    file:///three/simple\nfind-links = wheels ~/more https://four/page.html\nconstraint = /c.txt\n",
    )
    found = machine.uv()
    assert found.variables == {
        **found.variables,
        "UV_DEFAULT_INDEX": "https://user:secret@one/simple",
        "UV_INDEX": "https://two/simple file:///three/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": f"{Path.cwd()}/wheels,{Path('~/more').expanduser()},https://four/page.html",
        "UV_CONSTRAINT": "/c.txt",
    }
    assert "secret" not in " ".join(found.arguments)


def test_how_indexes_are_reached_becomes_variables_too(machine: Machine) -> None:
    machine.write(
        ".config/pip/pip.conf",
        "[global]\ncert = /ca.pem\nclient-cert = /me.pem\nproxy = me:secret@proxy:3128\ntrusted-host = one two:8443\n"
        "timeout = 180\nretries = 2\nno-index = true\npre = yes\nonly-binary = :all:\n",
    )
    found = machine.uv()
    assert found.variables == {
        **found.variables,
        "SSL_CERT_FILE": "/ca.pem",
        "SSL_CLIENT_CERT": "/me.pem",
        "HTTPS_PROXY": "http://me:secret@proxy:3128",
        "UV_INSECURE_HOST": "one two:8443",
        "UV_HTTP_TIMEOUT": "180",
        "UV_HTTP_RETRIES": "2",
        "UV_PRERELEASE": "allow",
    }
    assert found.arguments == ("--no-index", "--only-binary=:all:")


def test_pips_own_variable_for_the_timeout_is_named_otherwise(machine: Machine) -> None:
    assert machine.uv(PIP_DEFAULT_TIMEOUT="42").variables["UV_HTTP_TIMEOUT"] == "42"


@pytest.mark.parametrize("variable", ["UV_INDEX_URL", "UV_DEFAULT_INDEX"])
def test_a_variable_of_uvs_wins_over_pips_configuration(machine: Machine, variable: str) -> None:
    machine.write(".config/pip/pip.conf", "[global]\nindex-url = http://pip/\nretries = 5\n")
    found = machine.uv(**{variable: "http://uv/"})
    assert "UV_DEFAULT_INDEX" not in found.variables
    assert found.variables["UV_HTTP_RETRIES"] == "5"


def test_a_uv_toml_wins_over_pips_configuration(machine: Machine) -> None:
    machine.write(".config/pip/pip.conf", "[global]\nindex-url = http://pip/\nfind-links = /wheels\n")
    machine.write(".config/uv/uv.toml", '[[index]]\nname = "own"\nurl = "http://uv/"\n')
    assert "UV_DEFAULT_INDEX" not in machine.uv().variables
    assert machine.uv().variables["UV_FIND_LINKS"] == "/wheels"
    assert machine.uv(UV_NO_CONFIG="1").variables["UV_DEFAULT_INDEX"] == "http://pip/"


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("index-url https://me:word@here/\n", ": see line 1"),
        ("[global]\nindex-url word\n", ": see line 2"),
        ("[global]\ncert = a\ncert = word\n", ": see line 3"),
        ("\ufffd[global]\n", ": see line 1"),
    ],
)
def test_a_file_that_is_no_configuration_is_named_without_what_is_in_it(
    machine: Machine, content: str, where: str
) -> None:
    file = machine.write(".config/pip/pip.conf", content)
    with pytest.raises(InputError) as raised:
        machine.uv()
    assert raised.value.what == f"{file} is no configuration that pip can read{where}."
    assert "word" not in str(raised.value)


def test_so_is_one_that_is_no_text(machine: Machine) -> None:
    machine.write("pip.conf", "").write_bytes(b"[global]\nuser = \xff\xfe\n")
    with pytest.raises(InputError, match=r"pip\.conf is no configuration that pip can read\. Correct it"):
        machine.uv(PIP_CONFIG_FILE=str(machine.folder / "pip.conf"))


def test_one_that_cannot_be_opened_is_ignored(machine: Machine) -> None:
    (machine.folder / ".config" / "pip" / "pip.conf").mkdir(parents=True)
    assert "index-url" not in machine.options()


def test_only_the_standard_library_is_imported() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import haversack.packages.pip_settings as module;"
        "print(module.uv_settings({'PIP_CONFIG_FILE': '/dev/null', 'PIP_RETRIES': '3'}).variables)"
    )
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-ISc", code, str(root)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'UV_HTTP_RETRIES': '3'}"
