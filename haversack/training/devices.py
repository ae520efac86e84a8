"""The devices of this machine that Keras can train on, found and listed without changing anything.

A core is what JAX calls a device, a worker what it calls a process. No process is started and no cluster joined: more
than one worker is listed only if `jax.distributed` already runs. `keras.distribute` puts a training on all of them.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from haversack.errors import ExtraMissing, TrainingError

if TYPE_CHECKING:
    import jax


@dataclass(frozen=True)
class Device:
    """One core. `memory` is in bytes: its own, or its share of the host's where it has none; None where nobody says."""

    id: int
    kind: str
    platform: str
    process: int
    memory: int | None


@dataclass(frozen=True)
class System:
    """The devices in force, counted as a TPU system is. `str()` of it is the listing."""

    devices: tuple[Device, ...]

    @property
    def cores(self) -> int:
        return len(self.devices)

    @property
    def workers(self) -> int:
        return len({device.process for device in self.devices})

    @property
    def cores_per_worker(self) -> int:
        return self.cores // self.workers

    def __str__(self) -> str:
        counts = (("Cores", self.cores), ("Workers", self.workers), ("Cores per worker", self.cores_per_worker))
        return "\n".join([f"{name + ':':<18}{count}" for name, count in counts] + ["", *_table(self.devices)])

    def __repr__(self) -> str:
        return f"System(cores={self.cores}, workers={self.workers}, cores_per_worker={self.cores_per_worker})"


def devices() -> list[Device]:
    """Every core that Keras can train on, in JAX's order.

    Raises `ExtraMissing` without Keras and JAX, `TrainingError` if Keras runs on another backend.
    """
    import_keras()
    import jax

    return [_device(device) for device in jax.devices()]


def import_keras() -> Any:
    """Import Keras on JAX and return the module; sets `KERAS_BACKEND` to JAX if it is not set.

    Raises `ExtraMissing` without Keras and JAX, `TrainingError` if Keras runs on another backend.
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
            f"Keras runs on {backend} here, and haversack trains on JAX.",
            'Restart, and put os.environ["KERAS_BACKEND"] = "jax" before the first import of keras.',
        )
    import keras

    return keras


def _device(device: jax.Device) -> Device:
    return Device(device.id, device.device_kind, device.platform, device.process_index, _memory(device))


def _memory(device: jax.Device) -> int | None:
    """What the backend says it may allocate; a CPU device shares the host's memory with its siblings."""
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
    """The devices in aligned columns, a heading first."""
    rows = [("id", "kind", "platform", "process", "memory")]
    for device in devices:
        memory = "–" if device.memory is None else f"{device.memory / 1e9:.1f} GB"
        rows.append((str(device.id), device.kind, device.platform, str(device.process), memory))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
