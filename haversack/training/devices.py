"""The devices that Keras can train on, and how they are listed: as a TPU system is, by `System`.

A core is a JAX device, and a worker is a JAX process. Listing imports Keras and starts JAX in this process, but starts
no other process and joins no cluster: it shows several workers only if `jax.distributed` already runs.
`haversack.distribute` distributes training over all cores. `device_report` lists other frameworks' devices too.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from haversack.errors import ExtraMissing, InputError, TrainingError
from haversack.training import framework_devices
from haversack.training.framework_devices import Device


@dataclass(frozen=True)
class System:
    """All devices of all JAX processes, or those of another framework; a device is a core, a process is a worker.

    `str()` returns a table of them, as `distribute` and `haversack devices` print it.
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

    def json(self) -> dict[str, Any]:
        """Return the counts and the devices as JSON values; memory in bytes."""
        counts = {"cores": self.cores, "workers": self.workers, "cores_per_worker": self.cores_per_worker}
        return {**counts, "devices": [asdict(device) for device in self.devices]}

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
    return framework_devices.of_jax()


def simulated(cores: int, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables with which JAX simulates `cores` on the CPU, for a process with `variables`.

    Raises `InputError` if `cores` cannot be simulated.
    """
    check_simulated(cores)
    kept = [flag for flag in variables.get("XLA_FLAGS", "").split() if "force_host_platform_device_count" not in flag]
    flags = [*kept, f"--xla_force_host_platform_device_count={cores}"]
    return {"XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"}


def check_simulated(cores: int) -> None:
    """Raise `InputError` unless `cores` is a number of cores that can be simulated."""
    if cores < 1:
        raise InputError(f"{cores} cores cannot be simulated.", "Give --cores a number of at least 1.")


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


def _table(devices: tuple[Device, ...]) -> list[str]:
    """The lines of a table with a heading and a row for each device."""
    rows = [("id", "kind", "platform", "process", "memory", "found by")]
    for device in devices:
        memory = "–" if device.memory is None else f"{device.memory / 1e9:.1f} GB"
        rows.append((str(device.id), device.kind, device.platform, str(device.process), memory, device.found))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
