from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haversack.errors import InputError, TrainingError
from haversack.training.checkpoints.snapshot import Buffers, forms, rebuild

Moments = namedtuple("Moments", "mu nu")


def through(tree: Any, like: Any = None) -> Any:
    """A tree taken apart, written as JSON, and put together."""
    taken = Buffers().copy(tree)
    return rebuild(json.loads(json.dumps(taken.structure)), taken.arrays, like)


PLAIN = [None, True, False, 0, -7, 2**53, -(10**5000), 0.1, -0.0, 5e-324, math.inf, "", "é\ud800", b"", b"\x00\xff"]


@pytest.mark.parametrize("value", PLAIN, ids=range(len(PLAIN)))
def test_plain_values_come_back_exactly(value: Any) -> None:
    back = through({"value": value})["value"]
    assert back == value
    assert type(back) is type(value)
    assert not isinstance(value, float) or math.copysign(1, back) == math.copysign(1, value)


def test_nan_comes_back() -> None:
    assert math.isnan(through(math.nan))


def test_the_nesting_and_the_order_come_back() -> None:
    tree = {"b": [1, (2, [])], "a": {}, 3: (), None: {"x": [{}]}}
    back = through(tree)
    assert back == tree
    assert list(back) == list(tree)


def test_keys_that_print_alike_stay_apart() -> None:
    back = through({1: np.array(1), "1": np.array(2)})
    assert (back[1], back["1"]) == (1, 2)


def test_a_numpy_scalar_stays_one() -> None:
    assert type(through([np.float32(0.1)])[0]) is np.float32


def test_an_array_with_gaps_comes_back() -> None:
    array = np.arange(24).reshape(4, 6)[::2, 1::2]
    assert (through(array) == array).all()


def test_the_buffers_are_used_again() -> None:
    buffers = Buffers()
    first = buffers.copy({"a": np.zeros(3), "b": np.zeros(2)}).arrays
    second = buffers.copy({"a": np.ones(3), "b": np.ones(4)}).arrays
    assert second["a"] is first["a"]
    assert second["b"] is not first["b"]


def test_memory_is_made_ready_before_it_is_copied_into() -> None:
    arrays = {
        "large": np.zeros(8 << 20),
        "texts": np.array(["ab", "c"]),
        "none": np.zeros((0, 3)),
        "one": np.float32(1),
    }
    buffers = Buffers()
    before = resident_bytes()
    buffers.prepare(forms(arrays))
    assert resident_bytes() - before > 50 << 20
    assert {name: (one.shape, one.dtype) for name, one in buffers.copy(arrays).arrays.items()} == forms(arrays)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_what_is_still_computed_is_not_counted_as_copied() -> None:
    matrix = jnp.eye(400) * 0.5
    multiply = jax.jit(lambda x: jax.lax.fori_loop(0, 60, lambda _, y: y @ x, x).sum()).lower(matrix).compile()
    begun, buffers = time.monotonic(), Buffers()
    buffers.copy(multiply(matrix))
    assert buffers.copy_seconds < (time.monotonic() - begun) / 2


def test_the_form_of_a_random_key_is_known_from_its_values_alone() -> None:
    assert forms({"key": jax.random.key(1), "w": jnp.ones(2, jnp.bfloat16)}) == {"w": ((2,), jnp.bfloat16)}


def test_a_large_array_is_copied_whole() -> None:
    array = np.random.default_rng(0).random(5_000_001)
    assert (Buffers().copy(array).arrays["value"] == array).all()


SHAPE_ALONE = jax.ShapeDtypeStruct((2,), jnp.float32)


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), np.zeros(2, "i4,f8"), 1j, SHAPE_ALONE])
def test_what_cannot_be_kept_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="layers/0"):
        Buffers().copy({"layers": [value]})


def test_without_like_jax_arrays_are_numpys() -> None:
    back = through({"w": jnp.ones((2, 3), jnp.bfloat16)})["w"]
    assert isinstance(back, np.ndarray)
    assert back.dtype == jnp.bfloat16


def test_with_like_arrays_are_of_its_kind_and_its_sharding() -> None:
    sharding = jax.sharding.NamedSharding(jax.make_mesh((1,), ("batch",)), jax.sharding.PartitionSpec("batch"))
    tree = {"jax": jax.device_put(np.arange(4.0, dtype=np.float32), sharding), "numpy": np.ones(2)}
    back = through(tree, like=tree)
    assert isinstance(back["jax"], jax.Array)
    assert back["jax"].sharding == sharding
    assert type(back["numpy"]) is np.ndarray


def test_an_array_is_restored_like_an_abstract_one() -> None:
    back = through({"w": jnp.arange(3)}, like={"w": jax.ShapeDtypeStruct((3,), jnp.int32)})["w"]
    assert isinstance(back, jax.Array)
    assert back.tolist() == [0, 1, 2]


def test_a_snapshot_survives_donation() -> None:
    array = jnp.arange(1000.0)
    taken = Buffers().copy(array)
    jax.jit(lambda x: x + 1, donate_argnums=0)(array)
    assert (taken.arrays["value"] == np.arange(1000)).all()


def test_a_random_key_draws_the_same_after_it() -> None:
    key = jax.random.key(5)
    back = through([key], like=[key])[0]
    assert jax.random.uniform(back) == jax.random.uniform(key)


def test_a_namedtuple_is_one_again_with_like() -> None:
    tree = Moments(np.ones(2), (np.zeros(1), 3))
    assert isinstance(through(tree), tuple)
    assert through(tree, like=tree).nu[1] == 3


@pytest.mark.parametrize(
    ("like", "said"),
    [
        (
            {"a": [np.zeros(3)], "b": 1},
            r"a/0 is float64 of shape \(2,\) in the checkpoint, but in `like` it is float64",
        ),
        ({"a": [np.zeros(2, "f4")], "b": 1}, "in `like` it is float32"),
        ({"a": [np.zeros(2), 1], "b": 1}, "a has 1 parts in the checkpoint, but in `like` it is a list of 2"),
        ({"a": [np.zeros(2)]}, r"The tree has the keys \['a', 'b'\]"),
        ({"a": ["text"], "b": 1}, "a/0 is an array"),
    ],
)
def test_a_tree_that_is_unlike_is_told_where(like: Any, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        through({"a": [np.zeros(2)], "b": 1}, like=like)


def test_an_empty_dict_fits_the_state_that_an_optimizer_has_later() -> None:
    tree = {"state": {0: {"step": jnp.ones(()), "moment": np.ones(2)}}, "groups": [{"lr": 0.1}]}
    back = through(tree, like={"state": {}, "groups": [{"lr": 0.0}]})
    assert isinstance(back["state"][0]["step"], jax.Array)
    assert type(back["state"][0]["moment"]) is np.ndarray
    assert back["groups"] == [{"lr": 0.1}]


def test_arrays_of_torch_come_back_with_like() -> None:
    torch = pytest.importorskip("torch")
    tree = {"w": torch.arange(6.0).reshape(2, 3).requires_grad_(), "h": torch.ones(3, dtype=torch.bfloat16)}
    back = through(tree, like=tree)
    assert torch.equal(back["w"], tree["w"])
    assert back["w"].requires_grad
    assert torch.equal(back["h"], tree["h"])


def test_the_shards_of_eight_devices_come_back_to_them() -> None:
    program = """
import jax, json, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from haversack.training.checkpoints.snapshot import Buffers, forms, rebuild
mesh = jax.make_mesh((8,), ("batch",))
rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("batch",), ()))
tree = {"rows": jax.device_put(np.arange(16.0), rows), "whole": jax.device_put(np.ones(3), whole)}
taken = Buffers().copy(tree)
back = rebuild(taken.structure, taken.arrays, tree)
same = all(back[name].sharding == tree[name].sharding for name in tree)
step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
print(json.dumps([same, step(back)["rows"].tolist(), taken.arrays["rows"].tolist()]))
"""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    same, after_a_step, saved = json.loads(done.stdout)
    assert same
    assert after_a_step == [number + 1 for number in range(16)]
    assert saved == [*range(16)]
