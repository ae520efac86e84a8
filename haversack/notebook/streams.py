"""The global random streams of a job's kernel: where they begin is kept, and put back where a training goes on.

Runs in the kernel. A notebook that splits or shuffles its data without a seed has other data in each session, and a
training on other data cannot resume. So the state in which the streams of Python's `random`, numpy, torch and
TensorFlow begin is written to the job's folder. If the file is there already, they begin in the state that it has:
before a session the parent deletes it, unless the job has a training to go on with (`sessions.kept_streams`). In all
other sessions the streams are random, as without haversack, so a notebook that draws new samples draws new ones.

A library is never imported for this: its stream begins when the notebook imports it. Keras has no stream of its own
before a cell draws from it; then it is seeded by Python's. `numpy.random.default_rng()`, `secrets` and `uuid` ask the
operating system each time and are left alone, as is a stream that a cell seeds itself.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from haversack import disk
from haversack.notebook import channel
from haversack.notebook.import_hook import ImportHook

FILE = "streams.json"
"""The kept states, in the job's folder: a JSON object with the state of each library's stream."""
TRAINS = "trains"
"""The key in that object that the parent sets once the job has a training."""


def install(ipython: Any) -> None:
    """Begin the streams before the first cell, and those of libraries imported later when they are imported.

    Does nothing outside a job.
    """
    job = channel.job_folder()
    if job is None:
        return
    streams = Streams(job / FILE)
    sys.meta_path.insert(0, ImportHook(dict.fromkeys(_STREAMS, streams.begin)))

    def begin(info: Any) -> None:
        ipython.events.unregister("pre_run_cell", begin)
        for name in ("random", *_STREAMS):
            if name in sys.modules:
                streams.begin(sys.modules[name])

    ipython.events.register("pre_run_cell", begin)


class Streams:
    """The streams of one session: they begin in the states that `file` has; those that it lacks are added to it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._states = read(file)

    def begin(self, library: Any) -> None:
        """Begin the stream of `library`, a module: put its kept state back, or keep the one that it has."""
        name = library.__name__
        get, put = _OWN if name == "random" else _STREAMS[name]
        if name in self._states:
            put(library, self._states[name])
            return
        self._states[name] = get(library)
        with suppress(OSError):  # without room for the file, the next session draws anew
            disk.write(self._file, json.dumps(self._states), durable=False)


def read(file: Path) -> dict[str, Any]:
    """Return the kept states in `file`, {} if it is missing or unreadable."""
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError):
        return {}


def _python_state(library: Any) -> Any:
    return library.getstate()


def _put_python_state(library: Any, state: Any) -> None:
    version, numbers, gauss = state
    library.setstate((version, tuple(numbers), gauss))


def _numpy_state(numpy: Any) -> Any:
    name, numbers, *rest = numpy.random.get_state()
    return [name, numbers.tolist(), *rest]


def _put_numpy_state(numpy: Any, state: Any) -> None:
    numpy.random.set_state(tuple(state))


def _torch_state(torch: Any) -> Any:
    """The state of torch's CPU generator in hexadecimal digits, and a seed for those of GPUs.

    The latter cannot be read without starting the GPU, so they begin with a seed, which torch sets once there is one.
    """
    seed = _seed()
    torch.cuda.manual_seed_all(seed)
    return [bytes(torch.get_rng_state().tolist()).hex(), seed]


def _put_torch_state(torch: Any, state: Any) -> None:
    numbers, seed = state
    torch.set_rng_state(torch.tensor(list(bytes.fromhex(numbers)), dtype=torch.uint8))
    torch.cuda.manual_seed_all(seed)


def _seed_tensorflow(tensorflow: Any) -> Any:
    """Give TensorFlow a random seed and return it: the state of its streams cannot be read."""
    seed = _seed()
    tensorflow.random.set_seed(seed)
    return seed


def _put_tensorflow_seed(tensorflow: Any, seed: Any) -> None:
    tensorflow.random.set_seed(seed)


def _seed() -> int:
    return random.SystemRandom().randrange(2**31)


_Stream = tuple[Callable[[Any], Any], Callable[[Any, Any], None]]
_OWN: _Stream = (_python_state, _put_python_state)
# How the state of each library's stream is read and put back. A state is JSON.
_STREAMS: dict[str, _Stream] = {
    "numpy": (_numpy_state, _put_numpy_state),
    "torch": (_torch_state, _put_torch_state),
    "tensorflow": (_seed_tensorflow, _put_tensorflow_seed),
}
