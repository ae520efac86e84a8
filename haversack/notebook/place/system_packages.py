"""The commands `apt`, `apt-get`, `dpkg`, `add-apt-repository` and `sudo`, first on a job's PATH: no machine is changed.

Runs in a child process of the kernel. Notebooks install packages of Colab's system, where root and a disk that is lost
with the session are the notebook's own. Here they are installed

    on Colab and Kaggle             as they are, since that machine is lost with the session
    with `/content` by "namespace"  into the job: overlays (overlayfs) are mounted on /usr, /etc, /var and /opt, in the
                                    job's mount namespace only. The session's end takes them away.
    elsewhere                       not at all. What is missing is printed, in one line, with the command that installs
                                    it. A line that asks only for what is there already succeeds.

A container whose root is an overlay does not count as the job's own: it may be somebody's workplace. In a user
namespace, such as bubblewrap's, dpkg cannot give files to other users. A job has no user to answer apt's questions, so
each is answered with yes. `sudo` runs its command with the rights that the job has; it never asks for more.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from haversack import place

COMMANDS = ("apt", "apt-get", "dpkg", "add-apt-repository", "sudo")
_OVERLAID = ("usr", "etc", "var", "opt", "bin", "sbin", "lib", "lib32", "lib64")
# The words after which apt changes nothing but its own cache, if at all.
_READING = frozenset({"list", "search", "show", "policy", "depends", "rdepends", "download", "source", "changelog"})
_DPKG_WRITING = re.compile(r"-[irPA]\b|--(?:install|unpack|configure|remove|purge|add-architecture)")
# apt-get(8): "decimal 100 on error".
_ERROR = 100
_UID_MAP_OF_ALL_USERS = "4294967295"
_SUDO_OPTIONS_WITH_VALUE = ("-u", "-g", "-C", "-p", "--user", "--group")


def write_commands(folder: Path, python: Path) -> None:
    """Write the commands to the existing `folder`; they run by the interpreter `python`.

    Runs in the process of `haversack run`, whose mount namespace the commands must not change. Raises `OSError`.
    """
    for name in COMMANDS:
        program = folder / name
        module = "haversack.notebook.place.system_packages"
        program.write_text(f'#!/bin/sh\nexec "{python}" -m {module} "{_mount_namespace()}" {name} "$@"\n')
        program.chmod(0o755)


def main() -> None:
    """Run one command. Arguments: the parent's mount namespace, the command's name, its own arguments."""
    parent_namespace, name, *arguments = sys.argv[1:]
    if name == "sudo":
        _execute_without_sudo(arguments)
    if not _is_writing(name, arguments):
        _execute([name, *arguments])
    job = Path(os.environ["HAVERSACK_JOB"])
    if place.here() in ("colab", "kaggle") or _enter_own_root(job, parent_namespace):
        os.environ["DEBIAN_FRONTEND"] = "noninteractive"
        answers = [] if name == "dpkg" else ["-y"]
        _execute([name, *answers, *arguments])
    sys.exit(_refuse(name, arguments))


def _is_writing(name: str, arguments: Sequence[str]) -> bool:
    """Whether the command would change the system: installed packages, lists of packages, sources."""
    if name == "dpkg":
        return any(_DPKG_WRITING.match(argument) for argument in arguments)
    word = next((argument for argument in arguments if not argument.startswith("-")), None)
    return name == "add-apt-repository" or (word is not None and word not in _READING)


def _execute(command: Sequence[str]) -> None:
    """Replace this process by `command`, found on the PATH without the job's own commands (exec)."""
    own = Path(os.environ["HAVERSACK_JOB"]) / "bin"
    rest = os.pathsep.join(folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != own)
    program = shutil.which(command[0], path=rest)
    if program is None:
        sys.exit(f"{command[0]}: command not found. This machine has no packages of Debian's kind.")
    os.execv(program, [program, *command[1:]])


def _execute_without_sudo(arguments: list[str]) -> None:
    """Replace this process by the command that sudo is given, with its variables set (exec)."""
    rest = list(arguments)
    while rest and (rest[0].startswith("-") or re.match(r"\w+=", rest[0])):
        first = rest.pop(0)
        if first in _SUDO_OPTIONS_WITH_VALUE and rest:
            rest.pop(0)
        elif not first.startswith("-"):
            variable, _, value = first.partition("=")
            os.environ[variable] = value
    if not rest:
        sys.exit(0)
    try:
        os.execvp(rest[0], rest)
    except OSError as error:
        sys.exit(f"sudo: {rest[0]}: {error.strerror}")


# A root file system of the job's own


def _enter_own_root(job: Path, parent_namespace: str) -> bool:
    """Mount the overlays, unless they are mounted already; whether they are. `job` is the job's folder.

    Nothing is mounted if this process shares the mounts of `haversack run`, or is root in a user namespace only.
    """
    is_root = os.geteuid() == 0 and _UID_MAP_OF_ALL_USERS in Path("/proc/self/uid_map").read_text()
    if not is_root or _mount_namespace() in ("", parent_namespace):
        return False
    layers = job / "root"
    layers.mkdir(exist_ok=True)
    with open(layers / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folders = [
            Path("/", name) for name in _OVERLAID if Path("/", name).is_dir() and not Path("/", name).is_symlink()
        ]
        if str(layers / "usr") in Path("/proc/self/mountinfo").read_text():
            return True
        mounted: list[Path] = []
        try:
            for folder in folders:
                _overlay(folder, layers / folder.name)
                mounted.append(folder)
        except (OSError, subprocess.CalledProcessError):
            for folder in mounted:
                subprocess.run(["umount", "--lazy", folder], capture_output=True, check=False)
            return False
    return True


def _overlay(folder: Path, layer: Path) -> None:
    """Mount an overlay on `folder`, whose changes go to `layer`; other mounts below `folder` stay visible.

    Such mounts are a container's `/etc/resolv.conf` and the libraries of NVIDIA's driver. Raises `OSError` or
    `CalledProcessError`.
    """
    for name in ("upper", "work", "kept"):
        (layer / name).mkdir(parents=True, exist_ok=True)
    kept = list(_mounts_to_keep(folder))
    holders = [layer / "kept" / str(number) for number in range(len(kept))]
    for path, holder in zip(kept, holders, strict=True):
        holder.mkdir() if path.is_dir() else holder.touch()
        _mount("--rbind", str(path), str(holder))
    layers = f"lowerdir={folder},upperdir={layer / 'upper'},workdir={layer / 'work'}"
    _mount("-t", "overlay", "-o", layers, "overlay", str(folder))
    for path, holder in zip(kept, holders, strict=True):
        _mount("--rbind", str(holder), str(path))


def _mounts_to_keep(folder: Path) -> Iterator[Path]:
    """Yield the mount points below `folder`, and haversack's folders of data and cache if they are there."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]
    points += [Path(os.environ[name]) for name in ("HAVERSACK_DATA", "HAVERSACK_CACHE") if os.environ.get(name)]
    for point in dict.fromkeys(points):
        if point != folder and point.is_relative_to(folder) and point.exists():
            yield point


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=True)


def _mount_namespace() -> str:
    """The name of this process's mount namespace (namespaces(7)); "" where there are none."""
    try:
        return os.readlink("/proc/self/ns/mnt")
    except OSError:
        return ""


# Where nothing is installed


def _refuse(name: str, arguments: Sequence[str]) -> int:
    """Print what is not installed, and return the exit status: 0 if nothing that was asked for is missing."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    if name == "dpkg" or (words and words[0] in ("install", "reinstall")):
        packages = words if name == "dpkg" else words[1:]
        missing = [package for package in packages if not _is_there(package)]
        if not missing:
            return 0
        listed = " ".join(missing)
        print(
            f"{name}: {', '.join(missing)}: not installed, because that would change this machine. "
            f"Install it yourself: sudo apt-get install {listed}",
            file=sys.stderr,
        )
        return _ERROR
    if name == "add-apt-repository" or (words and words[0] in ("remove", "purge", "edit-sources")):
        print(f"{name} does nothing here, because that would change this machine.", file=sys.stderr)
    return 0  # lists are not updated and nothing is upgraded, which no later cell can tell


def _is_there(package: str) -> bool:
    """Whether the package is installed, or a command of its name is on the PATH."""
    name = re.split(r"[=/:]", Path(package).name if package.endswith(".deb") else package)[0].split("_")[0]
    if shutil.which(name):
        return True
    if shutil.which("dpkg-query") is None:
        return False
    query = ["dpkg-query", "--show", "--showformat", "${Status}", name]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.returncode == 0 and "ok installed" in done.stdout


if __name__ == "__main__":
    main()
