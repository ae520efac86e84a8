"""The devices that Keras can train on.

A core is a JAX device, and a worker is a JAX process. Listing imports Keras and starts JAX in this process, but starts
no other process and joins no cluster: it shows several workers only if `jax.distributed` already runs.
`haversack.distribute` distributes training over all cores.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haversack.errors import ExtraMissing, TrainingError

if TYPE_CHECKING:
    import jax


@dataclass(frozen=True)
class Device:
    """One core: a JAX device.

    Attributes:
        id: JAX's number of the device.
        kind: JAX's name of the model, such as "TPU v5 lite" or "cpu".
        platform: "cpu", "gpu" or "tpu".
        process: JAX's number of the process that the device belongs to.
        memory: bytes that may be allocated on it; for a CPU device its share of the host's memory; None if unknown, as
            for devices of other processes.
    """

    id: int
    kind: str
    platform: str
    process: int
    memory: int | None


@dataclass(frozen=True)
class System:
    """All devices of all JAX processes; a device is a core, a process is a worker.

    `str()` returns a table of them, as `distribute` prints it.
    """

    devices: tuple[Device, ...]

    @property
    def cores(self) -> int:
        """The number of devices."""
        return len(self.devices)

    @property
    def workers(self) -> int:
        """The number of processes that the devices belong to."""
        return len({device.process for device in self.devices})

    @property
    def cores_per_worker(self) -> int:
        """The number of devices of each process, rounded down if they have different numbers."""
        return self.cores // self.workers

    def __str__(self) -> str:
        counts = (("Cores", self.cores), ("Workers", self.workers), ("Cores per worker", self.cores_per_worker))
        return "\n".join([f"{name + ':':<18}{count}" for name, count in counts] + ["", *_table(self.devices)])

    def __repr__(self) -> str:
        return f"System(cores={self.cores}, workers={self.workers}, cores_per_worker={self.cores_per_worker})"


def devices() -> list[Device]:
    """Return every core that Keras can train on, those of other JAX processes included, in JAX's order.

    Imports Keras and JAX, and sets `KERAS_BACKEND` to "jax" if it is not set.

    Raises `ExtraMissing` if Keras or JAX is not installed, and `TrainingError` if Keras runs on another backend.
    """
    import_keras()
    import jax

    return [_device(device) for device in jax.devices()]


def usable_cores() -> int | None:
    """The number of cores that this process may use; None if the system does not know."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def processor_model() -> str:
    """The model name of this machine's CPU: compilers and libraries use what its instruction set has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def import_keras() -> Any:
    """Import Keras on JAX and return the module. Sets `KERAS_BACKEND` to "jax" if it is not set.

    Raises `ExtraMissing` if Keras or JAX is not installed, and `TrainingError` if Keras runs on another backend.
    """
    missing = [name for name in ("keras", "jax") if importlib.util.find_spec(name) is None]
    if missing:
        raise ExtraMissing(
            f"Training needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed.",
            'Install it with pip install "haversack[train]".',
        )
    imported = sys.modules.get("keras")
    backend = imported.backend.backend() if imported else os.environ.setdefault("KERAS_BACKEND", "jax")
    if backend != "jax":
        raise TrainingError(
            f"Keras runs on {backend} here, but haversack trains on JAX.",
            'Restart the process, and set os.environ["KERAS_BACKEND"] = "jax" before the first import of keras.',
        )
    import keras

    return keras


def _device(device: jax.Device) -> Device:
    return Device(device.id, device.device_kind, device.platform, device.process_index, _memory(device))


def _memory(device: jax.Device) -> int | None:
    """The backend's allocation limit in bytes, or a CPU device's share of the host's memory; None if unknown.

    Devices of other processes are not asked.
    """
    import jax

    if device.process_index != jax.process_index():
        return None
    statistics = device.memory_stats() or {}
    if "bytes_limit" in statistics:
        return int(statistics["bytes_limit"])
    if device.platform != "cpu" or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count("cpu")


def _table(devices: tuple[Device, ...]) -> list[str]:
    """The lines of a table with a heading and a row for each device."""
    rows = [("id", "kind", "platform", "process", "memory")]
    for device in devices:
        memory = "–" if device.memory is None else f"{device.memory / 1e9:.1f} GB"
        rows.append((str(device.id), device.kind, device.platform, str(device.process), memory))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
