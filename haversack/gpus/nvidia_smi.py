"""What `nvidia-smi` shows of this machine's GPUs. It comes with every driver, also in containers.

The program is asked, and not the library below it (NVML, by nvidia-ml-py): a driver that hangs then hangs a process
that can be ended, and no other package is needed.

In a container it may show neither processes nor the memory of MIG devices: what is unknown does not count as used.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from haversack.errors import JobError

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html"""
_PROGRAM = "nvidia-smi"
_CSV = "--format=csv,noheader,nounits"
_TIMEOUT = 20.0  # seconds for one answer
# What the driver and a desktop take of a GPU that no program computes on, in bytes.
_IDLE_MEMORY = 1 << 30
_CARD = re.compile(r"GPU (\d+): (.+) \(UUID: (\S+)\)")
_MIG = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (\S+)\)")


@dataclass(frozen=True)
class Gpu:
    """A GPU, or one MIG device of a GPU that is divided into such.

    Attributes:
        index: its number in nvidia-smi; a MIG device has its GPU's.
        uuid: begins with "GPU-" or "MIG-".
        name: the model's name.
        memory: bytes of memory; None if unknown.
        used: bytes of it in use; None if unknown.
        driver: the driver's version; "" if unknown.
        processes: ids of the processes that compute on it, as far as they are shown.
    """

    index: int
    uuid: str
    name: str
    memory: int | None = None
    used: int | None = None
    driver: str = ""
    processes: tuple[str, ...] = ()

    @property
    def is_mig(self) -> bool:
        return self.uuid.startswith("MIG-")

    @property
    def is_idle(self) -> bool:
        """Whether no program is known to use it."""
        return not self.processes and (self.used is None or self.used <= _IDLE_MEMORY)

    def __str__(self) -> str:
        return f"MIG device {self.uuid} of GPU {self.index}" if self.is_mig else f"GPU {self.index}"


def present() -> list[Gpu]:
    """Return the machine's GPUs in nvidia-smi's order; of one that is divided, its MIG devices.

    [] if there is no nvidia-smi or it finds no GPU. Raises `JobError` if it fails.
    """
    listed = _listed(_ask("-L")) if shutil.which(_PROGRAM) else []
    if not listed:
        return []
    states = {row[0]: row[1:] for row in _rows("--query-gpu=uuid,memory.total,memory.used,driver_version")}
    running = [row for row in _rows("--query-compute-apps=gpu_uuid,pid") if len(row) > 1]
    gpus = []
    for index, uuid, name in listed:
        memory, used, driver = [*states.get(uuid, []), "", "", ""][:3]
        processes = tuple(row[1] for row in running if row[0] == uuid)
        gpus.append(Gpu(index, uuid, name, _bytes(memory), _bytes(used), driver, processes))
    return gpus


def visible(gpus: Sequence[Gpu], variable: str | None) -> list[Gpu]:
    """Return those of `gpus` that `CUDA_VISIBLE_DEVICES` allows, in its order.

    `variable` is its value: indexes, UUIDs or their beginnings; None if it is not set, which allows all. As in CUDA,
    what follows an entry that names none does not count.
    """
    if variable is None:
        return list(gpus)
    chosen: list[Gpu] = []
    for entry in (part.strip() for part in variable.split(",")):
        if entry.isdecimal():
            named = [gpu for gpu in gpus if gpu.index == int(entry)]
        else:
            named = [gpu for gpu in gpus if len(entry) > len("GPU-") and gpu.uuid.startswith(entry)]
        if not named:
            break
        chosen += [gpu for gpu in named if gpu not in chosen]
    return chosen


def _ask(*arguments: str) -> str:
    """Return what nvidia-smi prints. Raises `JobError` if it fails."""
    try:
        done = subprocess.run(
            [_PROGRAM, *arguments], capture_output=True, text=True, timeout=_TIMEOUT, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise _failed(f"it did not answer in {_TIMEOUT:.0f} s") from None
    except OSError as error:
        raise _failed(str(error.strerror)) from None
    if done.returncode != 0:
        printed = (done.stdout or done.stderr).strip().splitlines()
        raise _failed(printed[0].rstrip(".") if printed else "it printed nothing")
    return done.stdout


def _failed(why: str) -> JobError:
    return JobError(
        f"{_PROGRAM} fails: {why}.", f"Run {_PROGRAM} by hand; reinstall the driver or restart the machine."
    )


def _listed(text: str) -> list[tuple[int, str, str]]:
    """Parse `nvidia-smi -L` into index, UUID and name of each GPU or, of a divided one, of each MIG device."""
    cards: list[list[tuple[int, str, str]]] = []
    for line in text.splitlines():
        if card := _CARD.match(line):
            cards.append([(int(card[1]), card[3], card[2])])
        elif (part := _MIG.match(line)) and cards:
            index, _, name = cards[-1][0]
            cards[-1].append((index, part[2], f"{name} MIG {part[1]}"))
    return [device for card in cards for device in (card[1:] or card)]


def _rows(query: str) -> list[list[str]]:
    return [[field.strip() for field in line.split(",")] for line in _ask(query, _CSV).splitlines() if line.strip()]


def _bytes(mebibytes: str) -> int | None:
    """MiB as nvidia-smi prints them, in bytes; None for "[N/A]", "[Insufficient Permissions]" and the like."""
    return int(mebibytes) << 20 if mebibytes.isdecimal() else None
