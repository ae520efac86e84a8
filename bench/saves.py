"""What one save costs a training: how long its loop loses, when the state is on the disk, how long reading it takes.

Every tool saves the same Keras model, from the same place of the same `model.fit`, whose compiled step replaces all of
the state and takes the old one's memory (donation). `blocked` is by how much the step with the save in front of it took
longer than a step: the call, the wait for memory, and what the step lost to whatever goes on behind it. `durable` is
the time from the call until the bytes are on the disk; where a tool does not ask the disk for that, its files are
synced for it. The limit is plain: write and fsync of the same bytes, and a read of them into new memory, measured
beside every save. All files are read from the page cache.

Tool and limit take turns, round by round, so that a slow minute of the machine meets both. The first save of each tool,
in which some make room in memory, is told apart. On a virtual machine, memory that nobody has touched for seconds may
cost more than the writing, so twice the size is touched and freed in front of every write and every save.
"""

from __future__ import annotations

import gc
import os
import shutil
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import keras
import numpy as np
import orbax.checkpoint as orbax

from haversack import Checkpoints
from haversack.training.keras import state

WEIGHTS = 32
STEPS, SAVED_BEFORE = 7, 5
"""Steps of one training; the save comes before the last but one."""
HEADINGS = ("first blocked", "blocked", "durable", "restored", "durable / raw", "restored / raw")
LIMIT = "plain write + fsync, read"


@dataclass(frozen=True)
class Cost:
    """Seconds. `restored` is None for a tool whose restoring is not measured."""

    blocked: float
    durable: float
    restored: float | None
    raw_write: float
    raw_read: float


class Weight(keras.layers.Layer):
    """A layer that is nothing but a weight."""

    def __init__(self, width: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.width = width

    def build(self, shape: tuple[int, ...]) -> None:
        self.weight = self.add_weight(shape=(self.width,), initializer="random_uniform")

    def call(self, inputs: Any) -> Any:
        return inputs + keras.ops.mean(self.weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


def model_of(size: int) -> keras.Model:
    """A model of `size` bytes, all of which every step replaces."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1,)), *[Weight(size // WEIGHTS // 4) for _ in range(WEIGHTS)]])
    model.compile(keras.optimizers.SGD(1e-6), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


# The tools: `save` returns as soon as the loop may go on, `settle` when all is written, `restore` reads it.


class Haversack:
    def __init__(self, model: keras.Model, folder: Path) -> None:
        self.model, self.step = model, 0
        self.checkpoints = Checkpoints("run", folder, keep=1)

    def save(self) -> None:
        self.step += 1
        self.checkpoints.save(self.step, state.values(self.model))

    def settle(self) -> None:
        while self.checkpoints.saving:
            time.sleep(0.0005)

    def restore(self) -> None:
        self.checkpoints.wait()
        assert self.checkpoints.restore() is not None


class OrbaxAsync:
    def __init__(self, model: keras.Model, folder: Path) -> None:
        self.model, self.path = model, folder / "state"
        self.checkpointer = orbax.AsyncCheckpointer(orbax.StandardCheckpointHandler())

    def save(self) -> None:
        values = state.values(self.model)
        self.shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), values)
        self.checkpointer.save(self.path, args=orbax.args.StandardSave(values), force=True)

    def settle(self) -> None:
        self.checkpointer.wait_until_finished()
        sync(self.path)

    def restore(self) -> None:
        jax.block_until_ready(self.checkpointer.restore(self.path, args=orbax.args.StandardRestore(self.shapes)))


class KerasOrbax:
    restore = None

    def __init__(self, model: keras.Model, folder: Path) -> None:
        self.callback = keras.callbacks.OrbaxCheckpoint(folder / "orbax", save_freq=1)
        self.callback.set_model(model)
        self.folder, self.batch = folder, 0

    def save(self) -> None:
        self.callback.on_train_batch_end(self.batch)
        self.batch += 1

    def settle(self) -> None:
        self.callback.wait_until_finished()
        sync(self.folder)


class BackupAndRestore:
    def __init__(self, model: keras.Model, folder: Path) -> None:
        self.callback = keras.callbacks.BackupAndRestore(folder, save_freq=1)
        self.callback.set_model(model)
        self.callback.on_train_begin()
        self.model, self.folder, self.batch = model, folder, 0

    def save(self) -> None:
        self.batch += 1
        self.callback.on_train_batch_end(self.batch)

    def settle(self) -> None:
        sync(self.folder)

    def restore(self) -> None:
        self.model.load_weights(self.folder / "latest.weights.h5")


class ModelCheckpoint:
    def __init__(self, model: keras.Model, folder: Path) -> None:
        self.callback = keras.callbacks.ModelCheckpoint(folder / "model.keras", save_freq=1)
        self.callback.set_model(model)
        self.callback.on_epoch_begin(0)
        self.folder, self.batch = folder, 0

    def save(self) -> None:
        self.batch += 1
        self.callback.on_train_batch_end(self.batch, {})

    def settle(self) -> None:
        sync(self.folder)

    def restore(self) -> None:
        keras.saving.load_model(self.folder / "model.keras", custom_objects={"Weight": Weight})


TOOLS: dict[str, Any] = {
    "haversack": Haversack,
    "Orbax AsyncCheckpointer": OrbaxAsync,
    "Keras OrbaxCheckpoint": KerasOrbax,
    "Keras BackupAndRestore": BackupAndRestore,
    "Keras ModelCheckpoint": ModelCheckpoint,
}


class Watch(keras.callbacks.Callback):
    """Takes the time of every step, and has one tool save before one of them."""

    def __init__(self, tool: Any) -> None:
        super().__init__()
        self.tool = tool
        self.steps: list[float] = []
        self.durable = 0.0
        self.settling = threading.Thread(target=self.settle)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        values = jax.block_until_ready(state.values(self._model))
        if batch == SAVED_BEFORE:
            ready_memory(sum(leaf.nbytes for leaf in jax.tree.leaves(values)))
        self.steps.append(time.perf_counter())
        if batch == SAVED_BEFORE:
            self.tool.save()
            self.settling.start()

    def settle(self) -> None:
        self.tool.settle()
        self.durable = time.perf_counter() - self.steps[SAVED_BEFORE]

    def cost(self) -> tuple[float, float]:
        """Seconds that the loop was blocked, and until the save was durable."""
        self.settling.join()
        taken = np.diff(self.steps)
        return float(taken[SAVED_BEFORE] - np.median(taken[1 : SAVED_BEFORE - 1])), self.durable


def measure(size: int, rounds: int, tools: list[str], scratch: Path) -> dict[str, dict[str, Any]]:
    """By tool the medians of `rounds`, after a first one that is told apart."""
    model = model_of(size)
    model.fit(*samples(), batch_size=1, verbose=0)
    found = {}
    for number, name in enumerate(tools):
        folder = scratch / str(number)
        folder.mkdir()
        tool = TOOLS[name](model, folder)
        found[name] = [cost_of(tool, model, scratch / "raw") for _ in range(1 + rounds)]
        del tool
        shutil.rmtree(folder)
    return {name: summary(costs) for name, costs in found.items()} | {LIMIT: limit(found)}


def cost_of(tool: Any, model: keras.Model, path: Path) -> Cost:
    written = raw_write(state.values(model), path)
    watch = Watch(tool)
    model.fit(*samples(), batch_size=1, verbose=0, callbacks=[watch])
    blocked, durable = watch.cost()
    # Twice each, in turns, and the shorter one: memory that is touched for the first time is slow.
    readings = [(timed(lambda: raw_read(path)), timed(tool.restore) if tool.restore else None) for _ in range(2)]
    path.unlink()
    was_read, restored = (min(times) if None not in times else None for times in zip(*readings, strict=True))
    return Cost(blocked, durable, restored, written, was_read)


def samples() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((STEPS, 1), np.float32), np.zeros((STEPS, 1), np.float32)


def raw_write(values: Any, path: Path) -> float:
    """Seconds to write and fsync the state's bytes."""
    arrays = [np.array(leaf).reshape(-1).view(np.uint8) for leaf in jax.tree.leaves(values)]

    def write() -> None:
        with open(path, "wb", buffering=0) as file:
            for array in arrays:
                file.write(array.data)
            os.fsync(file.fileno())

    ready_memory(sum(array.nbytes for array in arrays))
    return timed(write)


def ready_memory(size: int) -> None:
    """Touch and free twice the size."""
    np.empty(2 * size, np.uint8)[::4096] = 1


def raw_read(path: Path) -> None:
    """Read a file into new memory."""
    room = np.empty(path.stat().st_size, np.uint8)
    with open(path, "rb", buffering=0) as file:
        at = 0
        while count := file.readinto(room.data[at : at + (8 << 20)]):
            at += count


def timed(work: Callable[[], object]) -> float:
    gc.collect()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def sync(folder: Path) -> None:
    """Have the disk keep every file below a folder."""
    for path in [folder, *folder.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def summary(costs: list[Cost]) -> dict[str, Any]:
    first, *rest = costs
    return {
        "first blocked": first.blocked,
        "blocked": median([cost.blocked for cost in rest]),
        "durable": median([cost.durable for cost in rest]),
        "restored": median([cost.restored for cost in rest]),
        "durable / raw": median([cost.durable / cost.raw_write for cost in rest]),
        "restored / raw": median([cost.restored and cost.restored / cost.raw_read for cost in rest]),
        "blocked in each round": [cost.blocked for cost in rest],
    }


def limit(found: dict[str, list[Cost]]) -> dict[str, Any]:
    costs = [cost for costs in found.values() for cost in costs]
    written, was_read = ([getattr(cost, name) for cost in costs] for name in ("raw_write", "raw_read"))
    return {"durable": median(written), "restored": median(was_read)}


def median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def show(measured: dict[str, dict[str, Any]]) -> None:
    """A line for each tool."""
    print(f"{'':<26}" + "".join(f"{heading:>15}" for heading in HEADINGS))
    for name, values in measured.items():
        cells = [values.get(heading) for heading in HEADINGS]
        print(f"{name:<26}" + "".join(f"{'–' if cell is None else format(cell, '.3f'):>15}" for cell in cells))
