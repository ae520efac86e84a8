"""Fingerprints of a training as JSON: its data, its model, and the machine it runs on.

Every checkpoint of a run holds them. A session that resumes the run compares: another model or other data under the
same name is an error, and another machine is reported, because the last digits may then differ. Data is sketched, not
hashed: values that differ by rounding, as in images that another machine decoded, count as equal.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from haversack.training.devices import processor_model, usable_cores

_SAMPLED_ROWS = 256
_TOLERANCE = 1e-3
_PRECISION = ("jax_default_matmul_precision", "jax_enable_x64")
_LIBRARIES = ("keras", "jax", "jaxlib", "numpy")
# Settings of a layer that differ from process to process.
_PROCESS_SETTINGS = {"name", "seed"}
_PLAIN = (bool, int, float, str)
_INFINITIES = (float("inf"), float("-inf"))
# Settings of an optimizer that a run may change: callbacks adjust the learning rate.
_VOLATILE_SETTINGS = {"name", "learning_rate"}


def sketch(array: Any) -> dict[str, Any]:
    """Return shape, dtype and one number for each of up to 256 evenly spaced rows of `array`, as a JSON object.

    `array` has a sample per row. The number is a weighted sum of the row's values, where NaN counts as 0 and infinity
    as 1 or -1. Arrays that are not real numbers have a hash of these rows instead; sparse and ragged arrays have shape
    and dtype only.
    """
    shape = [int(size) for size in array.shape]
    found: dict[str, Any] = {"shape": shape, "dtype": str(getattr(array, "dtype", type(array).__name__))}
    picked = (
        np.unique(np.linspace(0, shape[0] - 1, _SAMPLED_ROWS).astype(np.int64)) if shape[0] else np.empty(0, np.int64)
    )
    rows = array.iloc if hasattr(array, "iloc") else array
    try:
        values = np.stack([np.asarray(rows[int(row)]).ravel() for row in picked]) if len(picked) else np.empty((0, 0))
    except (TypeError, ValueError):
        return found  # sparse or ragged
    if values.dtype.kind in "biuf":
        numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=1.0, neginf=-1.0)
        # The weights are a cosine along the row, so that rows with the same values in another order differ.
        found["rows"] = (numbers * np.cos(np.arange(numbers.shape[1]))).sum(axis=1).tolist()
        found["scale"] = float(np.abs(numbers).sum(axis=1).mean()) if len(picked) else 0.0
    else:
        found["hash"] = hashlib.blake2b(repr(values.tolist()).encode(), digest_size=16).hexdigest()
    return found


def of_model(model: Any) -> dict[str, Any]:
    """Return the fingerprint of a built, compiled model, as JSON.

    It has the settings of layers and optimizer, except names, seeds and the learning rate, and dtype and shape of every
    variable.
    """
    optimizer = model.optimizer
    return {
        "layers": [_settings(layer, _PROCESS_SETTINGS) for layer in model._flatten_layers(include_self=False)],
        "variables": [f"{variable.dtype}{list(variable.shape)}" for variable in model.variables],
        "optimizer": _settings(optimizer, _VOLATILE_SETTINGS),
        "optimizer variables": [f"{variable.dtype}{list(variable.shape)}" for variable in optimizer.variables],
        "metrics variables": [f"{variable.dtype}{list(variable.shape)}" for variable in model.metrics_variables],
    }


def of_machine() -> dict[str, Any]:
    """Return what of this machine changes the last bits of a training's results, as JSON.

    That is devices, CPU cores, distribution, versions of Keras, JAX and numpy, XLA flags and precision.
    """
    import jax
    import keras

    devices = jax.devices()
    return {
        "devices": len(devices),
        "device": devices[0].device_kind if devices[0].platform != "cpu" else processor_model(),
        "cores": usable_cores(),
        "distribution": type(keras.distribution.distribution()).__name__,
        "flags": " ".join(sorted(os.environ.get("XLA_FLAGS", "").split())),
        "precision": ", ".join(
            str(setting) for setting in (keras.config.floatx(), *(getattr(jax.config, name) for name in _PRECISION))
        ),
        **{name: importlib.metadata.version(name) for name in _LIBRARIES},
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe each entry that differs between two fingerprints, for example "devices 8, now 4"; [] if none does.

    Sketches of arrays are equal within a tolerance of 0.1 %. Of two lists of equal length, only the first difference is
    described.
    """
    found = []
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if _same(old, new):
            continue
        if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            index = next(index for index, pair in enumerate(zip(old, new, strict=True)) if not _same(*pair))
            name, old, new = f"{name}[{index}]", old[index], new[index]
        if isinstance(old, Mapping) and isinstance(new, Mapping) and _describe(old) == _describe(new):
            within = "" if "shape" in old else f" ({'; '.join(differences(old, new))})"
            found.append(f"{name} {_describe(old)} with other {'values' if 'shape' in old else 'settings'}{within}")
        else:
            found.append(f"{name} {_describe(old)}, now {_describe(new)}")
    return found


def _settings(part: Any, excluded: set[str]) -> dict[str, Any]:
    """The class of a layer or optimizer and the plain values of its configuration, except the `excluded` names."""
    try:
        configuration = part.get_config()
    except Exception:  # noqa: BLE001 - users' layers may raise anything here, and need no configuration to be trained
        configuration = {}
    kept = {key: value for key, value in configuration.items() if key not in excluded and type(value) in _PLAIN}
    # JSON has no infinity.
    return {"class": type(part).__name__, **{key: str(one) if one in _INFINITIES else one for key, one in kept.items()}}


def _same(before: Any, now: Any) -> bool:
    """Whether two entries are equal; sketches of values are compared with a tolerance."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        if "rows" in before and "rows" in now and len(before["rows"]) == len(now["rows"]):
            tolerance = _TOLERANCE * before["scale"]
            close = np.allclose(before["rows"], now["rows"], rtol=_TOLERANCE, atol=tolerance, equal_nan=True)
            return bool(close) and all(before[key] == now.get(key) for key in before if key not in ("rows", "scale"))
        return before.keys() == now.keys() and all(_same(before[key], now[key]) for key in before)
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(_same, before, now))
    return bool(before == now)


def _describe(value: Any) -> str:
    """An entry in a few words: a layer by its class, an array by dtype and shape, a list by its length."""
    if isinstance(value, Mapping):
        return f"{value['dtype']}{value['shape']}" if "shape" in value else str(value.get("class"))
    if isinstance(value, list):
        return f"of {len(value)}"
    return "none" if value in (None, "") else str(value)
