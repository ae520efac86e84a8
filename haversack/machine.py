"""What this machine has for notebooks, drive and trainings, and what to do about what it lacks: `haversack doctor`.

Only this machine is examined: nothing is sent over the network, no hub is started, nothing is installed or written, and
no secret is shown. So a sign-in that is found may still be refused (`haversack whoami` tries it), and FUSE that looks
usable may still refuse a mount. `drive.care.doctor` examines the drive instead.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from haversack import __version__, credentials, google, place, progress, settings, signin
from haversack.drive.fuse.mount import why_no_fuse
from haversack.errors import HaversackError, JobError
from haversack.gpus import locks, nvidia_smi
from haversack.notebook.place import content

LITTLE_DISK = 5 * 10**9
"""Free bytes of a folder below which the doctor says that a data set or an environment may not fit."""
LITTLE_MEMORY = 10**9
"""Available bytes of memory below which the doctor says that a notebook may be killed."""
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_SYS_ADMIN = 1 << 21  # CAP_SYS_ADMIN, the capability to mount; capabilities(7)
_NVIDIA = "0x10de"  # the company's number on the PCI bus
_TIMEOUT = 20.0  # seconds for a program that is asked for its version or state
_COMMANDS = ("git", "wget", "curl", "unzip")
_CONTENT = {
    "namespace": "Each job has a /content of its own, by a mount namespace.",
    "bubblewrap": "Each job has a /content of its own, by bubblewrap.",
    "folder": "/content is a symbolic link, for one job at a time, because this container forbids namespaces.",
    "literals": "Jobs have no /content: paths that begin with it are rewritten in string literals and shell lines.",
}


@dataclass(frozen=True)
class Fact:
    """What was found out about one part of the machine.

    Attributes:
        name: The part, such as "FUSE".
        what: What it is or lacks, in one sentence or a few.
        ok: False if something is missing or will not work.
        remedy: What to do about it, in one line; "" if `ok`.
        values: The same for scripts, as JSON values; sizes in bytes.
    """

    name: str
    what: str
    ok: bool = True
    remedy: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        line = f"{'✓' if self.ok else '✗'} {self.name:<14} {self.what}"
        return f"{line}\n  {'':<14} → {self.remedy}" if self.remedy else line


@dataclass(frozen=True)
class Machine:
    """Everything that was found out, in the order in which it is shown."""

    findings: list[Fact]

    def json(self) -> dict[str, Any]:
        """Return {"findings": …, "lacks": the names of those that are not `ok`}, as JSON values."""
        return {
            "findings": [asdict(finding) for finding in self.findings],
            "lacks": [finding.name for finding in self.findings if not finding.ok],
        }

    def __str__(self) -> str:
        lacks = sum(not finding.ok for finding in self.findings)
        end = f"{lacks} of {len(self.findings)} lack something; → says what to do." if lacks else "Nothing is missing."
        return "\n".join([*map(str, self.findings), "", f"{end} The drive itself: haversack drive doctor."])


def examine() -> Machine:
    """Examine this machine. A part that cannot be examined, for example because of invalid settings, is a finding."""
    parts: dict[str, Callable[[str], Fact]] = {
        "Python": _python,
        "settings": _settings,
        "FUSE": _fuse,
        "/content": _content,
        "GPU": _gpu,
        "cores": _cores,
        "memory": _memory,
        "data folder": _data,
        "cache folder": _cache,
        "drive": _drive,
        "Kaggle": _kaggle,
        "uv": _uv,
        "commands": _commands,
    }
    return Machine([_examined(name, part) for name, part in parts.items()])


def _examined(name: str, part: Callable[[str], Fact]) -> Fact:
    try:
        return part(name)
    except HaversackError as error:
        return Fact(name, error.what, False, error.next_step or "Correct it.")
    except (OSError, ValueError) as error:
        return Fact(name, f"It cannot be examined: {error}.", False, "Check the file or program that this names.")


def _python(name: str) -> Fact:
    where = {"colab": " on Colab", "kaggle": " on Kaggle"}.get(place.here(), "")
    version = platform.python_version()
    what = f"Python {version} at {sys.executable}, haversack {__version__}, on {platform.platform()}{where}."
    values = {"version": version, "path": sys.executable, "haversack": __version__, "place": place.here()}
    return Fact(name, what, values=values)


def _settings(name: str) -> Fact:
    settings.load()
    file = settings.path()
    fields = [f"HAVERSACK_{field.upper()}" for field in settings.Settings.__dataclass_fields__]
    given = [variable for variable in fields if os.environ.get(variable)]
    what = f"{file}{'' if file.is_file() else ' does not exist, which is fine'}"
    what += f"; the environment sets {', '.join(given)}." if given else "."
    return Fact(name, what, values={"file": str(file), "exists": file.is_file(), "environment": given})


def _fuse(name: str) -> Fact:
    values = {
        "device": os.access("/dev/fuse", os.R_OK | os.W_OK),
        "fusermount": shutil.which("fusermount3") or shutil.which("fusermount"),
    }
    if why_not := why_no_fuse():
        if "turns FUSE off" in why_not:
            remedy = "Unset HAVERSACK_FUSE to mount the drive."
        elif "/dev/fuse" in why_not:
            remedy = (
                "Load the kernel's module (modprobe fuse), in a container start it with --device /dev/fuse "
                "--cap-add SYS_ADMIN; without a mount: haversack drive get and put."
            )
        else:
            remedy = "Install FUSE (Debian, Ubuntu: apt-get install fuse3)."
        return Fact(name, why_not, False, remedy, values)
    if not _may_mount():
        return Fact(
            name,
            "FUSE is installed, but this container may not mount.",
            False,
            "Start the container with --cap-add SYS_ADMIN; without a mount: haversack drive get and put.",
            values,
        )
    program = f", fusermount is {values['fusermount']}" if values["fusermount"] else ""
    return Fact(name, f"The drive can be mounted: /dev/fuse and libfuse are there{program}.", values=values)


def _may_mount(status: Path = Path("/proc/self/status")) -> bool:
    """Whether this process, or the setuid root program fusermount3, can have the capability to mount; True if unknown.

    `status` is a file in the format of `/proc/self/status` (proc(5)).
    """
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return True
    fields = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    if "CapEff" not in fields:
        return True
    if int(fields["CapEff"][0], 16) & _SYS_ADMIN:
        return True
    if os.geteuid() == 0 or fields.get("NoNewPrivs") == ["1"]:
        return False
    return bool(int(fields.get("CapBnd", ["0"])[0], 16) & _SYS_ADMIN)


def _content(name: str) -> Fact:
    method = content.method()
    what, values = _CONTENT[method], {"method": method, "bubblewrap": shutil.which("bwrap")}
    if method in ("namespace", "bubblewrap"):
        return Fact(name, what, values=values)
    if values["bubblewrap"]:
        remedy = (
            "bubblewrap is installed but may not make user namespaces: allow them (as root: sysctl -w "
            "user.max_user_namespaces=15000; on Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0)."
        )
    else:
        remedy = "Install bubblewrap (Debian, Ubuntu: apt-get install bubblewrap)."
    return Fact(name, what, False, remedy, values)


def _gpu(name: str) -> Fact:
    if shutil.which("nvidia-smi") is None:
        if _has_nvidia_card():
            remedy = "Install NVIDIA's driver; in a container start it with --gpus all."
            return Fact(name, "There is an NVIDIA card, but no nvidia-smi.", False, remedy, {"gpus": []})
        what = "No NVIDIA card; trainings use the CPU's cores. Other accelerators are not looked for."
        return Fact(name, what, values={"gpus": []})
    try:
        gpus = nvidia_smi.present()
    except JobError as error:
        return Fact(name, error.what, False, error.next_step, {"gpus": []})
    if not gpus:
        remedy = "Run nvidia-smi by hand; reinstall the driver or restart the machine."
        return Fact(name, "nvidia-smi shows no GPU.", False, remedy, {"gpus": []})
    holders = [locks.holder(gpu) for gpu in gpus]
    values = [{**asdict(gpu), "holder": held and asdict(held)} for gpu, held in zip(gpus, holders, strict=True)]
    what = "; ".join(_of_gpu(gpu, held) for gpu, held in zip(gpus, holders, strict=True))
    return Fact(name, f"{what}. Driver {gpus[0].driver or 'unknown'}.", values={"gpus": values})


def _of_gpu(gpu: nvidia_smi.Gpu, held: locks.GpuHolder | None) -> str:
    """Return a clause on a GPU: its name, memory, and who uses it. `held` is the job that holds it, if one does."""
    memory = ""
    if gpu.memory is not None and gpu.used is not None:
        memory = f", {progress.size(gpu.used)} of {progress.size(gpu.memory)} used"
    if held:
        use = f"held by {held}"
    elif gpu.processes:
        use = f"used by process {', '.join(gpu.processes)}"
    else:
        use = "free" if gpu.is_idle else "used by programs that are not shown"
    return f"{gpu}: {gpu.name}{memory}, {use}"


def _has_nvidia_card(bus: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Whether the PCI bus has a display or 3D controller (class 0x03) of NVIDIA's."""
    for vendor in bus.glob("*/vendor"):
        try:
            if vendor.read_text().strip() == _NVIDIA and vendor.with_name("class").read_text().startswith("0x03"):
                return True
        except OSError:
            continue
    return False


def _cores(name: str) -> Fact:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = []
    for folder in _control_groups():
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            limits.append(int(quota) / int(period))
    limit = min(limits, default=None)
    what = f"{usable} of {platform.machine()}"
    if limit is not None and limit < usable:
        what += f", of which the container may use the time of {limit:.1f}"
    return Fact(name, f"{what}.", values={"cores": usable, "limit": limit})


def _memory(name: str) -> Fact:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return Fact(name, "Unknown on this system.", values={"total": None, "available": None})
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    total = kilobytes["MemTotal"] * 1024
    available = kilobytes.get("MemAvailable", kilobytes["MemFree"]) * 1024
    for folder in _control_groups():
        try:
            limit = int((folder / "memory.max").read_text())
            used = int((folder / "memory.current").read_text())
            pages = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue  # "max": no limit
        # Cached pages of files count as used, and are dropped when memory is needed.
        left = limit - used + int(pages.get("inactive_file", 0))
        total, available = min(total, limit), min(available, max(left, 0))
    what = f"{progress.size(total)}, {progress.size(available)} available."
    values = {"total": total, "available": available}
    if available < LITTLE_MEMORY:
        remedy = "Close other programs; a notebook that needs more is killed (haversack run restarts it)."
        return Fact(name, what, False, remedy, values)
    return Fact(name, what, values=values)


def _control_groups() -> list[Path]:
    """Return the folders of this process's control group (cgroup v2) and of those around it; [] if there are none."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if own is None:
        return []
    folder = _CONTROL_GROUPS / own.lstrip("/")
    return [one for one in (folder, *folder.parents) if one.is_relative_to(_CONTROL_GROUPS)]


def _data(name: str) -> Fact:
    remedy = "Set HAVERSACK_DATA to a folder on a mounted volume, or sign in to a drive: haversack login."
    return _folder(name, settings.load().data, "HAVERSACK_DATA", remedy)


def _cache(name: str) -> Fact:
    remedy = "Set HAVERSACK_CACHE to a folder on a mounted volume, or what is cached is downloaded again."
    return _folder(name, settings.load().cache, "HAVERSACK_CACHE", remedy)


def _folder(name: str, folder: Path, variable: str, if_lost: str) -> Fact:
    """Examine a folder that need not exist yet; `if_lost` is the remedy where its disk is lost with the session."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free, outlives = shutil.disk_usage(there).free, place.disk_outlives_session(folder)
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    kind = place.file_system(folder)
    values = {"path": str(folder), "free": free, "writable": writable, "outlives_session": outlives}
    values["file_system"] = kind
    what = f"{folder}, {progress.size(free)} free{f' on {kind}' if kind else ''}"
    if not writable:
        return Fact(name, f"{what}; it cannot be written.", False, f"Set {variable} to another folder.", values)
    if free < LITTLE_DISK:
        remedy = f"Free space (haversack jobs rm --done, haversack data rm), or set {variable} to another disk."
        return Fact(name, f"{what}, which is little.", False, remedy, values)
    if not outlives:
        return Fact(name, f"{what}; it is lost with this machine's session.", False, if_lost, values)
    return Fact(name, f"{what}; it outlives the session.", values=values)


def _drive(name: str) -> Fact:
    """Which drive `credentials.drive` would choose, and by which sign-in; no hub is started and nobody is asked."""
    known, stored = settings.load(), signin.load()
    chosen = known.hub or stored.drive
    found = known.google or (stored.google or {}).get("with") or next(google.ways(), None)
    lasts = place.disk_outlives_session(known.data)
    if chosen == "google" or (chosen is None and not lasts and found):
        values = {"drive": "google", "sign_in": found}
        if found is None:
            remedy = "Sign in: haversack login google"
            return Fact(name, "Google's drive is chosen, but nobody is signed in.", False, remedy, values)
        return Fact(name, f"Google's drive, by {found}; not tried (haversack whoami tries it).", values=values)
    if chosen and chosen != "embedded":
        credentials.check_hub_address(chosen)
        address = _without_user(chosen)
        source = "HAVERSACK_TOKEN" if os.environ.get("HAVERSACK_TOKEN", "").strip() else None
        source = source or ("haversack login" if chosen.rstrip("/") in stored.hubs else None)
        values = {"drive": address, "sign_in": source}
        if source is None:
            remedy = f"Put its token in HAVERSACK_TOKEN, or sign in: haversack login hub {address}"
            return Fact(name, f"There is no token for the hub at {address}.", False, remedy, values)
        return Fact(name, f"The hub at {address}, by {source}; not tried (haversack whoami tries it).", values=values)
    values = {"drive": "embedded" if chosen or lasts else None, "sign_in": None}
    if values["drive"] is None:
        what = f"Nobody is signed in, and {known.data} is lost with this machine's session."
        return Fact(name, what, False, "Sign in: haversack login; or accept the loss: --hub embedded", values)
    what = f"The embedded hub, over {known.data / 'hub'}; it needs no sign-in. For Google's: haversack login."
    return Fact(name, what, values=values)


def _kaggle(name: str) -> Fact:
    chosen = settings.load().hub or signin.load().drive
    if chosen and chosen not in ("google", "embedded"):
        address = _without_user(chosen)
        return Fact(name, f"Served by the hub at {address}.", values={"server": address, "sign_in": None})
    server = credentials.own_kaggle()
    if server is None and (mirror := settings.load().kaggle):
        address = _without_user(mirror)
        what = f"The mirror at {address}, without a sign-in, which serves public data sets."
        return Fact(name, what, values={"server": address, "sign_in": None})
    if server is None:
        remedy = "For data sets of Kaggle's own, sign in: haversack login kaggle"
        what = "Nobody is signed in to Kaggle; the embedded hub serves its API."
        return Fact(name, what, False, remedy, {"server": "embedded", "sign_in": None})
    address = _without_user(server.url)
    what = f"Kaggle at {address}, by {server.source}; not tried (haversack whoami tries it)."
    return Fact(name, what, values={"server": address, "sign_in": server.source})


def _without_user(url: str) -> str:
    """Return `url` without a user name and password, and without a query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def _uv(name: str) -> Fact:
    found = _uv_path()
    if found is None:
        what = "uv is not installed, so notebooks that call it fail."
        return Fact(name, what, False, "Install it: pip install uv", {"path": None, "version": None})
    try:
        done = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=_TIMEOUT)
        version = done.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        version = ""
    values = {"path": found, "version": version or None}
    if not version:
        return Fact(name, f"{found} does not run.", False, "Reinstall it: pip install --force-reinstall uv", values)
    return Fact(name, f"{version} at {found}.", values=values)


def _uv_path() -> str | None:
    """The path of uv: on the PATH, or beside this Python, where `pip install uv` puts it in a virtual environment."""
    beside = Path(sys.executable).with_name("uv")
    return shutil.which("uv") or (str(beside) if os.access(beside, os.X_OK) else None)


def _commands(name: str) -> Fact:
    found = {command: shutil.which(command) for command in _COMMANDS}
    missing = [command for command, path in found.items() if path is None]
    if missing:
        what = f"Notebooks often call {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} missing."
        return Fact(name, what, False, f"Debian, Ubuntu: apt-get install {' '.join(missing)}", dict(found))
    return Fact(name, f"{', '.join(found)}, which notebooks often call, are installed.", values=dict(found))
