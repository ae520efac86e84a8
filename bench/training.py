"""What a checkpoint costs: how long the loop stops for it, when it is on the disk, how long reading it takes.

    uv run python bench/training.py                   # 100 MB and 1 GB, three times each
    uv run python bench/training.py --megabytes 100 --repeats 5

Every tool saves the same number of bytes of arrays from a loop whose jitted step donates them. `blocked` is the time
that the loop lost: in the call, and in the next step where that took longer than usual. `durable` is the time from the
call until the bytes are on the disk; where a tool does not ask the disk for that, its files are synced for it. The
limit is plain: write and fsync of the same bytes, and read of them into new memory, measured beside each tool. Files
are read from the page cache by all alike. Medians and ratios to the limit are printed, and saved in
`bench/results/training.json`.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np
import orbax.checkpoint as orbax

from haversack import Checkpoints

RESULTS = Path(__file__).with_name("results") / "training.json"
ARRAYS = 32
HEADINGS = ("blocked", "durable", "restored", "durable / raw", "restored / raw")
"""Seconds, and ratios to the limit."""


@dataclass(frozen=True)
class Measured:
    """Seconds; `restored` is None for a tool that is not asked to restore."""

    blocked: float
    durable: float
    restored: float | None


class Loop:
    """A training in small: a step that replaces all of its state."""

    def __init__(self, size: int) -> None:
        count = size // ARRAYS // 4
        # Random bits do not compress, and touch every page.
        random = np.random.default_rng(0)
        self.state = {f"layer{number}": jax.device_put(random.random(count, np.float32)) for number in range(ARRAYS)}
        self._step = jax.jit(lambda state: jax.tree.map(lambda x: x * 0.999 + 0.001, state), donate_argnums=0)
        self.usual = statistics.median([self.step() for _ in range(5)][1:])

    def step(self) -> float:
        """Take a step; its seconds."""
        started = time.perf_counter()
        self.state = jax.block_until_ready(self._step(self.state))
        return time.perf_counter() - started

    def penalty(self) -> float:
        """What the next step takes more than the usual one."""
        return max(0.0, self.step() - self.usual)


def haversack(loop: Loop, folder: Path) -> Iterator[Measured]:
    """The first save is made before the clock runs: every later one finds its buffers."""
    with Checkpoints("run", folder, keep=1) as checkpoints:
        checkpoints.save(0, loop.state, wait=True)
        while True:
            started = time.perf_counter()
            checkpoints.save(1, loop.state)
            blocked = time.perf_counter() - started + loop.penalty()
            while checkpoints.saving:
                time.sleep(0.001)
            durable = time.perf_counter() - started
            checkpoints.wait()
            yield Measured(blocked, durable, timed(checkpoints.restore))


def orbax_async(loop: Loop, folder: Path) -> Iterator[Measured]:
    with orbax.AsyncCheckpointer(orbax.StandardCheckpointHandler()) as checkpointer:
        for number in range(1 << 30):
            path = folder / str(number)
            started = time.perf_counter()
            checkpointer.save(path, args=orbax.args.StandardSave(loop.state))
            blocked = time.perf_counter() - started + loop.penalty()
            checkpointer.wait_until_finished()
            sync(path)
            durable = time.perf_counter() - started
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), loop.state)
            restored = timed(lambda path=path, shapes=shapes: restore_with_orbax(checkpointer, path, shapes))
            yield Measured(blocked, durable, restored)
            shutil.rmtree(path)


def restore_with_orbax(checkpointer: orbax.AsyncCheckpointer, path: Path, shapes: Any) -> None:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)
    jax.block_until_ready(checkpointer.restore(path, args=orbax.args.StandardRestore(like)))


def backup_and_restore(loop: Loop, folder: Path) -> Iterator[Measured]:
    return keras_callback(loop, folder, lambda: keras.callbacks.BackupAndRestore(folder / "backup"))


def model_checkpoint(loop: Loop, folder: Path) -> Iterator[Measured]:
    return keras_callback(loop, folder, lambda: keras.callbacks.ModelCheckpoint(folder / "model.keras"))


def keras_orbax(loop: Loop, folder: Path) -> Iterator[Measured]:
    return keras_callback(loop, folder, lambda: keras.callbacks.OrbaxCheckpoint(folder / "orbax"))


def keras_callback(loop: Loop, folder: Path, make: Callable[[], keras.callbacks.Callback]) -> Iterator[Measured]:
    """A callback of Keras at the end of an epoch of a model that has as many bytes."""
    width = loop.state["layer0"].size
    model = keras.Sequential([keras.Input((1,)), *[Weight(width) for _ in range(ARRAYS)]])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    while True:
        callback = make()
        callback.set_model(model)
        callback.on_train_begin()
        started = time.perf_counter()
        callback.on_epoch_end(0, {})
        blocked = time.perf_counter() - started
        if isinstance(callback, keras.callbacks.OrbaxCheckpoint):
            callback.on_train_end()
        sync(folder)
        yield Measured(blocked, time.perf_counter() - started, None)
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


class Weight(keras.layers.Layer):
    """A layer that is nothing but a weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def build(self, shape: tuple[int, ...]) -> None:
        self.weight = self.add_weight(shape=(self.width,), initializer="random_uniform")

    def call(self, inputs: Any) -> Any:
        return inputs + self.weight[:1]

    def get_config(self) -> dict[str, Any]:
        return {"width": self.width}


TOOLS: dict[str, Callable[[Loop, Path], Iterator[Measured]]] = {
    "haversack": haversack,
    "Orbax AsyncCheckpointer": orbax_async,
    "Keras OrbaxCheckpoint": keras_orbax,
    "Keras BackupAndRestore": backup_and_restore,
    "Keras ModelCheckpoint": model_checkpoint,
}


def raw(loop: Loop, folder: Path) -> tuple[float, float]:
    """Seconds to write and fsync the state's bytes, and to read them back into new memory."""
    path = folder / "raw"
    arrays = [np.asarray(array) for array in loop.state.values()]

    def write() -> None:
        with open(path, "wb", buffering=0) as file:
            for array in arrays:
                file.write(memoryview(array))
            os.fsync(file.fileno())

    def read() -> None:
        room = np.empty(path.stat().st_size, np.uint8)
        with open(path, "rb", buffering=0) as file:
            at = 0
            while count := file.readinto(room.data[at : at + (8 << 20)]):
                at += count

    written, was_read = timed(write), timed(read)
    path.unlink()
    return written, was_read


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


def measure(size: int, repeats: int, tools: list[str], scratch: Path) -> dict[str, dict[str, Any]]:
    """Medians by tool; the ratios are to a limit measured just before the same repetition."""
    loop = Loop(size)
    found: dict[str, dict[str, Any]] = {}
    limits = []
    for name in tools:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            runs, ratios = TOOLS[name](loop, Path(folder)), []
            results = []
            for _ in range(repeats):
                limits.append(raw(loop, scratch))
                results.append(next(runs))
                written, was_read = limits[-1]
                restored = results[-1].restored
                ratios.append((results[-1].durable / written, None if restored is None else restored / was_read))
            runs.close()  # type: ignore[attr-defined]
        found[name] = {
            **{key: median([asdict(result)[key] for result in results]) for key in asdict(results[0])},
            "durable / raw": median([durable for durable, _ in ratios]),
            "restored / raw": median([restored for _, restored in ratios]),
        }
        show(name, found[name])
    found["raw write + fsync, read"] = {
        "durable": median([written for written, _ in limits]),
        "restored": median([was_read for _, was_read in limits]),
    }
    show("raw write + fsync, read", found["raw write + fsync, read"])
    return found


def median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 4) if known else None


def show(name: str, measured: dict[str, Any]) -> None:
    cells = [measured.get(key) for key in HEADINGS]
    print(f"{name:<26}" + "".join(f"{'–' if cell is None else format(cell, '.3f'):>15}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tools", nargs="+", choices=[*TOOLS], default=[*TOOLS])
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    tables = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for size in given.megabytes:
        print(f"\n{f'{size} MB':<26}" + "".join(f"{heading:>15}" for heading in HEADINGS))
        measured = measure(size * 10**6, given.repeats, given.tools, given.scratch)
        tables[f"{size} MB"] = {"repeats": given.repeats, "machine": machine(), "seconds": measured}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(tables, indent=1, ensure_ascii=False) + "\n")


def machine() -> dict[str, Any]:
    """What the figures were taken on; a load above the number of cores makes them rough."""
    versions = {"python": platform.python_version(), "jax": jax.__version__, "keras": keras.__version__}
    return {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), **versions, "orbax": orbax.__version__}


if __name__ == "__main__":
    main()
