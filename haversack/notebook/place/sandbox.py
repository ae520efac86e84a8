"""The sandbox of a job whose notebook is somebody else's program: it sees no folder of the user's, and no process.

Runs in the process of `haversack run`. bubblewrap (`bwrap`) starts the kernel in a new root with namespaces of its own:

    files       read-only: the system (`/usr`, a few files of `/etc`, `/sys`), the Python, what of haversack a kernel
                imports, the job's folder, the inputs; writable: `/content`, `/kaggle/working`, HOME, `/tmp`, and the
                job's `OWN` folders
    processes   a PID namespace, so that it neither sees nor signals others; likewise System V IPC and host name
    rights      no capability, none to be gained (no_new_privs, bwrap(1)); no device but the basic ones and the GPUs

It has the network of this machine: it may call any server, those on loopback and on abstract Unix sockets included, and
on a cloud machine that one's metadata server. It may use up memory, processors and disk. The kernel of Linux itself is
the wall, so a hole in it is a hole in the sandbox.

What surrounds the sandbox is the job's usual `/content` (`place.content`), whose mounts, such as the overlay of the
environment, are made first: in the sandbox there is no right to mount.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from haversack.errors import HaversackError, JobError
from haversack.notebook.clients import interpreter
from haversack.notebook.place.content import CONTENT, KAGGLE, ContentFolder
from haversack.notebook.place.environment import Environment, parent_packages
from haversack.packages import uv

OWN = ("content", "home", "downloads", "ending", "own")
"""The folders of a job that its sandbox may write to; it writes to its environment too."""
_KAGGLE_OWN = ("working", "temp", "tmp")
DATA, CACHE, _TEMPORARY = "own/data", "own/cache", "own/tmp"
_BASE = (
    *("bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--cap-drop", "ALL", "--die-with-parent"),
    *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--dev", "/dev"),
    # Read-only: root may write to the whole machine's settings in /proc/sys, also without any capability.
    *("--proc", "/proc", "--remount-ro", "/proc"),
    # ipykernel ends itself where its parent is process 1, which in a PID namespace says nothing.
    *("--unsetenv", "JPY_PARENT_PID"),
)
_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "sys")
# What of /etc libraries and shells need: names, certificates, time, the linker, fonts. No keys, no servers' settings.
_ETC = (
    "passwd", "group", "hosts", "nsswitch.conf", "host.conf", "gai.conf", "services", "protocols", "localtime",
    "timezone", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "ssl/certs", "ssl/openssl.cnf",
    "pki/tls/certs", "pki/ca-trust/extracted", "ca-certificates", "ca-certificates.conf", "fonts", "mime.types",
    "magic", "os-release", "debian_version", "lsb-release", "bash.bashrc", "profile", "OpenCL/vendors",
    "vulkan/icd.d",
)  # fmt: skip
_DEVICES = ("nvidia*", "dri", "kfd", "accel*", "dxg", "infiniband")


def check() -> None:
    """Raise `JobError` if this machine cannot isolate a program."""
    if shutil.which("bwrap") is None:
        raise _no_sandbox("bubblewrap (bwrap) is not installed")
    trial = subprocess.run([*_BASE, *_read_only_system(), "--", "true"], stdin=subprocess.DEVNULL, capture_output=True)
    if trial.returncode:
        reason = trial.stderr.decode(errors="replace").strip().rpartition("\n")[2].rstrip(".")
        raise _no_sandbox(f"bubblewrap does not work here ({reason})")


def _no_sandbox(why: str) -> JobError:
    return JobError(
        f"The notebook is somebody else's program, and this machine cannot isolate it: {why}.",
        "Install bubblewrap (sudo apt-get install bubblewrap), or read the notebook and run it with --trust.",
    )


def isolated(
    content: ContentFolder, job: Path, environment: Environment, tree: Path | None, sockets: Path
) -> ContentFolder:
    """Return `content`, a prepared `/content`, with the sandbox behind its own mounts; make the folders that it needs.

    Args:
        content: the job's `/content`, in which the environment is mounted.
        job: the job's folder.
        environment: the session's environment.
        tree: the environment in the store that it is a view of; None for the packages that haversack runs with.
        sockets: the folder of the kernel's sockets.

    Raises `OSError` if a folder cannot be made.
    """
    for name in (*OWN, DATA, CACHE, _TEMPORARY):
        (job / name).mkdir(parents=True, exist_ok=True)
    read_only = [job, *_python(environment, tree), *_ours(job, environment)]
    writable = [*(job / name for name in OWN), environment.folder, sockets]
    if content.kaggle:
        writable += [content.kaggle / name for name in _KAGGLE_OWN]
    # A mount hides what was mounted below it before, so what lies deeper comes later.
    mounts = [("--ro-bind", path) for path in dict.fromkeys(read_only)] + [("--bind", path) for path in writable]
    prefix = [*_BASE, *_read_only_system(), *_devices()]
    for folder in ("/tmp", "/var/tmp"):
        prefix += ["--bind", str(job / _TEMPORARY), folder]
    if not any(path.is_relative_to("/root") for _, path in mounts):
        prefix += ["--bind", str(content.home), "/root"]
    for option, path in sorted(mounts, key=lambda mount: len(mount[1].parts)):
        prefix += [option, str(path), str(path)]
    prefix += ["--bind", str(content.folder), str(CONTENT)]
    if content.kaggle:
        prefix += ["--ro-bind", str(content.kaggle), str(KAGGLE)]  # with the inputs, which are mounted below it
        for name in _KAGGLE_OWN:
            prefix += ["--bind", str(content.kaggle / name), str(KAGGLE / name)]
    prefix += ["--chdir", str(content.cwd_of_cells), "--"]
    return replace(content, prefix=(*content.prefix, *prefix))


def _read_only_system() -> Iterator[str]:
    """Yield the options that show the system's folders, read-only."""
    for name in _SYSTEM:
        entry = Path("/", name)
        if entry.is_symlink():
            yield from ("--symlink", os.readlink(entry), str(entry))
        elif entry.is_dir():
            yield from ("--ro-bind", str(entry), str(entry))
    for name in _ETC:
        if (file := Path("/etc", name)).exists():
            yield from ("--ro-bind", str(file.resolve()), str(file))
    # Where systemd or a container manages it, it is a link to a file in a folder that is not shown.
    if (resolver := Path("/etc/resolv.conf")).exists():
        yield from ("--ro-bind", str(resolver.resolve()), str(resolver))


def _devices() -> Iterator[str]:
    """Yield the options that show the accelerators' devices."""
    for pattern in _DEVICES:
        for device in sorted(Path("/dev").glob(pattern)):
            yield from ("--dev-bind", str(device), str(device))


def _python(environment: Environment, tree: Path | None) -> Iterator[Path]:
    """Yield the folders of the interpreter and, without an environment from a lock, of haversack's own packages."""
    interpreter_ = Path(os.path.realpath((tree or environment.folder) / "bin" / "python"))
    yield interpreter_.parent.parent
    if tree is None:
        yield from (Path(sys.base_prefix), Path(sys.prefix), *parent_packages())


def _ours(job: Path, environment: Environment) -> Iterator[Path]:
    """Yield what of haversack a kernel imports, and uv, by which its cells install packages."""
    yield interpreter.IMPORTED_FROM / "haversack"
    if environment.is_own:
        yield from sorted(link.resolve() for link in (job / "kernel-path").iterdir())
    try:
        yield Path(uv.program())
    except HaversackError:
        return  # cells then install by pip
