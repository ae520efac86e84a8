"""`!apt-get install` in a job: into the job where that is possible, never into the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from haversack.notebook.place import content
from tests.notebook import notebooks
from tests.notebook.conftest import Run

NEEDS_APT = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs Debian's dpkg")
NEEDS_NAMESPACE = pytest.mark.skipif(content.method() != "namespace", reason="needs root and mount namespaces")


def shown(path: str, index: int) -> str:
    """What a cell shows; a `!` line runs in a terminal, which ends lines by two characters."""
    return notebooks.text(path, index).replace("\r", "")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of Debian's kind with the command `haversack-hello`."""
    tree = tmp_path / "tree"
    for folder in ("DEBIAN", "usr/bin"):
        (tree / folder).mkdir(parents=True)
    control = "Package: haversack-hello\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: a test\n"
    (tree / "DEBIAN" / "control").write_text(control)
    program = tree / "usr" / "bin" / "haversack-hello"
    program.write_text("#!/bin/sh\necho hello from a package\n")
    program.chmod(0o755)
    subprocess.run(["dpkg-deb", "--build", tree, tmp_path / "hello.deb"], check=True, capture_output=True)
    return tmp_path / "hello.deb"


@NEEDS_APT
@NEEDS_NAMESPACE
@pytest.mark.parametrize("command", ["apt-get install -qq", "sudo apt install -y", "dpkg -i"])
def test_a_package_is_installed_into_the_job_only(run: Run, package: Path, command: str) -> None:
    dns = Path("/etc/resolv.conf").read_text()
    report = run(
        f"!{command} {package}", "!haversack-hello", "!dpkg -s haversack-hello | head -2; cat /etc/resolv.conf"
    )
    assert report.shell_failures == [], shown(report.output, 0)
    assert shown(report.output, 1) == "hello from a package\n"
    assert "install ok installed" in shown(report.output, 2)
    assert shown(report.output, 2).endswith(dns)
    assert shutil.which("haversack-hello") is None
    assert subprocess.run(["dpkg-query", "--show", "haversack-hello"], capture_output=True).returncode != 0


@NEEDS_APT
@pytest.mark.parametrize("method", ["bubblewrap", "literals"])
def test_elsewhere_nothing_changes_and_what_is_missing_is_said(
    run: Run, package: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    if method == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap")
    monkeypatch.setenv("HAVERSACK_CONTENT", method)
    before = Path("/var/lib/dpkg/status").stat().st_mtime_ns
    report = run(
        "!apt-get update -qq",
        "!apt-get install -y libc6 bash > /dev/null",
        "!sudo apt-get install -y -qq bash haversack-hello python3-none > /dev/null",
        f"!dpkg -i {package}",
        "print('goes on')",
    )
    assert report.status == "done"
    assert shown(report.output, 0) == shown(report.output, 1) == ""
    assert shown(report.output, 2) == (
        "apt-get: haversack-hello, python3-none: not installed, because that would change this machine. "
        "Install it yourself: sudo apt-get install haversack-hello python3-none\n"
    )
    assert [failure["status"] for failure in report.shell_failures] == [100, 100]
    assert shown(report.output, 4) == "goes on\n"
    assert Path("/var/lib/dpkg/status").stat().st_mtime_ns == before


def test_without_a_mount_namespace_of_its_own_nothing_is_mounted(tmp_path: Path) -> None:
    """The command runs in the namespace of this test, as a cell would where `/content` is a link."""
    namespace = os.readlink("/proc/self/ns/mnt")
    before = Path("/proc/self/mountinfo").read_text()
    command = [
        sys.executable,
        "-m",
        "haversack.notebook.place.system_packages",
        namespace,
        "apt-get",
        "install",
        "no-x",
    ]
    environment = {**os.environ, "HAVERSACK_JOB": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 100
    assert "no-x: not installed" in done.stderr
    assert Path("/proc/self/mountinfo").read_text() == before


def test_sudo_runs_the_command_with_the_rights_of_the_job(run: Run) -> None:
    report = run("!sudo -E NAME=x sh -c 'id -u; echo $NAME'", "!sudo no-such-command")
    assert shown(report.output, 0).split() == [str(os.geteuid()), "x"]
    assert shown(report.output, 1) == "sudo: no-such-command: No such file or directory\n"


@NEEDS_APT
def test_commands_that_only_read_are_the_machines_own(run: Run) -> None:
    report = run("!apt-get --version | head -1; dpkg -s dpkg | head -1; apt-cache policy dpkg | head -1")
    assert [line.split()[0] for line in shown(report.output, 0).splitlines()] == ["apt", "Package:", "dpkg:"]
