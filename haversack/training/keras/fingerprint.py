"""Fingerprints of a training as JSON: its data, its model, and the machine it runs on.

Every checkpoint of a run holds them. A session that resumes the run compares: another model or other data under the
same name is an error, and another machine is reported, because the last digits may then differ. Data is compared by a
sketch of some rows: values that differ by rounding, as in images that another machine decoded, count as equal. Where
these rows are equal to the bit, the other rows are compared too, by hash.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import xxhash

from haversack.training.devices import processor_model, usable_cores

_SAMPLED_ROWS = 256
_TOLERANCE = 1e-3
# All rows of an array of at most so many bytes are hashed (0.2 s), in so many parts.
_LARGEST_HASHED = 512 << 20
_PARTS = 64
_PRECISION = ("jax_default_matmul_precision", "jax_enable_x64")
_LIBRARIES = ("keras", "jax", "jaxlib", "numpy")
# Settings of a layer that differ from process to process.
_PROCESS_SETTINGS = {"name", "seed"}
_PLAIN = (bool, int, float, str)
# Lists of at most so many plain values are shown in messages.
_LONGEST_SHOWN = 4
_INFINITIES = (float("inf"), float("-inf"))
# Settings of an optimizer that a run may change: callbacks adjust the learning rate.
_VOLATILE_SETTINGS = {"name", "learning_rate"}


def sketch(array: Any) -> dict[str, Any]:
    """Return shape, dtype and one number for each of up to 256 evenly spaced rows of `array`, as a JSON object.

    `array` has a sample per row. The number is a weighted sum of the row's values, where NaN counts as 0 and infinity
    as 1 or -1. Arrays that are not real numbers have a hash of these rows instead; sparse and ragged arrays have shape
    and dtype only. An array of up to 512 MiB also has a hash of these rows ("exact"), and one of each 64th of all rows
    ("parts").
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
    return found | _hashes(array, values)


def _hashes(array: Any, sampled: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The hashes of the `sampled` rows and of all rows of `array`; {} if it is too large, or holds Python objects."""
    size = int(np.prod(array.shape, dtype=np.float64)) * int(getattr(getattr(array, "dtype", None), "itemsize", 8))
    if size > _LARGEST_HASHED or sampled.dtype.hasobject:
        return {}
    whole = np.asarray(array)
    if whole.dtype.hasobject:
        return {}
    bounds = np.linspace(0, len(whole), min(_PARTS, max(len(whole), 1)) + 1).astype(np.int64)
    parts = [whole[start:stop] for start, stop in itertools.pairwise(bounds)]
    return {"exact": _hash(sampled), "parts": [_hash(part) for part in parts]}


def _hash(rows: np.ndarray[Any, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data if rows.size else b"")


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
            within = _rows_of(old, new) if "shape" in old else f" ({'; '.join(differences(old, new))})"
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
        if "shape" in before and "shape" in now:
            return _same_sketch(before, now)
        return before.keys() == now.keys() and all(_same(before[key], now[key]) for key in before)
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(_same, before, now))
    return bool(before == now)


def _same_sketch(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two sketches are of the same data.

    Where the sampled rows are equal to the bit, all rows must be; where they differ by rounding, the others are not
    compared.
    """
    if not all(before.get(key) == now.get(key) for key in ("shape", "dtype", "hash")):
        return False
    old, new = before.get("rows", []), now.get("rows", [])
    if len(old) != len(new):
        return False
    tolerance = _TOLERANCE * before.get("scale", 0.0)
    return np.allclose(old, new, rtol=_TOLERANCE, atol=tolerance, equal_nan=True) and not _changed_parts(before, now)


def _changed_parts(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[int]:
    """The numbers of the parts whose hash differs although the sampled rows are equal to the bit."""
    if before.get("exact") is None or before.get("exact") != now.get("exact"):
        return []
    return [number for number, pair in enumerate(zip(before["parts"], now["parts"], strict=True)) if len({*pair}) > 1]


def _rows_of(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Where the rows are that differ between two sketches, such as " between rows 312 and 625"; "" if unknown."""
    changed = _changed_parts(before, now)
    if not changed:
        return ""
    count, parts = before["shape"][0], len(before["parts"])
    return f" between rows {count * changed[0] // parts} and {count * (changed[-1] + 1) // parts}"


def _describe(value: Any) -> str:
    """An entry in a few words: a layer by its class, an array by dtype and shape, a list by its length."""
    if isinstance(value, Mapping):
        return f"{value['dtype']}{value['shape']}" if "shape" in value else str(value.get("class"))
    if isinstance(value, list):
        plain = len(value) <= _LONGEST_SHOWN and all(type(one) in _PLAIN for one in value)
        return str(value) if plain else f"of {len(value)}"
    return "none" if value in (None, "") else str(value)
