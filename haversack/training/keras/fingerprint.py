"""What a training is made of, in a few lines of JSON: the model, the data, and the machine it runs on.

A run's checkpoints carry it, so that another model or other data under the same name is noticed instead of trained on,
and so that a session knows whether it computes to the bit what the one before would have. Data is sketched, not hashed:
numbers that differ by rounding, as images decoded on another machine do, are the same data.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_ROWS = 256
_CLOSE = 1e-3
_PRECISION = ("jax_default_matmul_precision", "jax_enable_x64")
_LIBRARIES = ("keras", "jax", "jaxlib", "numpy")
# What a layer's configuration says of its own name and chance differs from process to process.
_OF_THE_PROCESS = {"name", "seed"}
_PLAIN = (bool, int, float, str)
_ENDLESS = (float("inf"), float("-inf"))
_VOLATILE = {"name", "learning_rate"}


def sketch(array: Any) -> dict[str, Any]:
    """Shape, dtype and one number for each of up to 256 rows spread over `array`, which has a sample per row."""
    shape = [int(size) for size in array.shape]
    found: dict[str, Any] = {"shape": shape, "dtype": str(getattr(array, "dtype", type(array).__name__))}
    picked = np.unique(np.linspace(0, shape[0] - 1, _ROWS).astype(np.int64)) if shape[0] else np.empty(0, np.int64)
    rows = array.iloc if hasattr(array, "iloc") else array
    try:
        values = np.stack([np.asarray(rows[int(row)]).ravel() for row in picked]) if len(picked) else np.empty((0, 0))
    except (TypeError, ValueError):
        return found  # sparse or ragged: its shape has to do
    if values.dtype.kind in "biuf":
        numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=1.0, neginf=-1.0)
        # A wave over the row tells rows apart that hold the same numbers in another order.
        found["rows"] = (numbers * np.cos(np.arange(numbers.shape[1]))).sum(axis=1).tolist()
        found["scale"] = float(np.abs(numbers).sum(axis=1).mean()) if len(picked) else 0.0
    else:
        found["hash"] = hashlib.blake2b(repr(values.tolist()).encode(), digest_size=16).hexdigest()
    return found


def of_model(model: Any) -> dict[str, Any]:
    """The layers with their plain settings, the variables' shapes, the optimizer: of a model that is built."""
    optimizer = model.optimizer
    return {
        "layers": [_settings(layer, _OF_THE_PROCESS) for layer in model._flatten_layers(include_self=False)],
        "variables": [f"{variable.dtype}{list(variable.shape)}" for variable in model.variables],
        "optimizer": _settings(optimizer, _VOLATILE),
        "optimizer variables": [f"{variable.dtype}{list(variable.shape)}" for variable in optimizer.variables],
        "metrics variables": [f"{variable.dtype}{list(variable.shape)}" for variable in model.metrics_variables],
    }


def of_machine() -> dict[str, Any]:
    """What decides the last bits of a training: devices, cores, versions, flags."""
    import jax
    import keras

    devices = jax.devices()
    return {
        "devices": len(devices),
        "device": devices[0].device_kind if devices[0].platform != "cpu" else _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "distribution": type(keras.distribution.distribution()).__name__,
        "flags": " ".join(sorted(os.environ.get("XLA_FLAGS", "").split())),
        "precision": ", ".join(
            str(setting) for setting in (keras.config.floatx(), *(getattr(jax.config, name) for name in _PRECISION))
        ),
        **{name: importlib.metadata.version(name) for name in _LIBRARIES},
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, what differs: "devices 8, now 4"; of two lists, the first place where they do."""
    found = []
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if _same(old, new):
            continue
        if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            place = next(place for place, pair in enumerate(zip(old, new, strict=True)) if not _same(*pair))
            name, old, new = f"{name}[{place}]", old[place], new[place]
        if isinstance(old, Mapping) and isinstance(new, Mapping) and _said(old) == _said(new):
            within = "" if "shape" in old else f" ({'; '.join(differences(old, new))})"
            found.append(f"{name} {_said(old)} with other {'values' if 'shape' in old else 'settings'}{within}")
        else:
            found.append(f"{name} {_said(old)}, now {_said(new)}")
    return found


def _settings(thing: Any, but: set[str]) -> dict[str, Any]:
    """The class of a layer or optimizer and the numbers, words and switches of its configuration."""
    try:
        configuration = thing.get_config()
    except Exception:  # noqa: BLE001 - users' layers may raise anything here, and need no configuration to be trained
        configuration = {}
    kept = {key: value for key, value in configuration.items() if key not in but and type(value) in _PLAIN}
    # JSON has no infinity.
    return {"class": type(thing).__name__, **{key: str(one) if one in _ENDLESS else one for key, one in kept.items()}}


def _same(before: Any, now: Any) -> bool:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        if "rows" in before and "rows" in now and len(before["rows"]) == len(now["rows"]):
            close = np.allclose(before["rows"], now["rows"], rtol=_CLOSE, atol=_CLOSE * before["scale"], equal_nan=True)
            return bool(close) and all(before[key] == now.get(key) for key in before if key not in ("rows", "scale"))
        return before.keys() == now.keys() and all(_same(before[key], now[key]) for key in before)
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(_same, before, now))
    return bool(before == now)


def _said(value: Any) -> str:
    """A value in a few words: a layer by its class, an array by its shape, a list by its length."""
    if isinstance(value, Mapping):
        return f"{value['dtype']}{value['shape']}" if "shape" in value else str(value.get("class"))
    if isinstance(value, list):
        return f"of {len(value)}"
    return "none" if value in (None, "") else str(value)


def _processor() -> str:
    """The processor's own name: XLA compiles for its instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
