"""The devices that JAX, PyTorch and TensorFlow can use on this machine: `haversack devices`.

Each is asked in a process of its own, all at once, in the Python of the active virtual environment (`VIRTUAL_ENV`; in a
job the notebook's) or else in haversack's own. One that hangs or crashes is a problem that is reported.

GPUs that `nvidia-smi` shows are compared with the answers. Other accelerators are known from the frameworks only.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from haversack.errors import JobError
from haversack.gpus import nvidia_smi
from haversack.gpus.nvidia_smi import Gpu
from haversack.notebook.secrets.masking import Secrets
from haversack.notebook.secrets.variables import secret_values
from haversack.training import devices
from haversack.training.devices import System
from haversack.training.framework_devices import Device
from haversack.training.framework_process import FrameworkProcess

TIMEOUT = 120.0
"""Seconds in which a framework must answer: a first import of TensorFlow from a cold disk takes most of a minute."""
_NAMES = {"jax": "JAX", "torch": "PyTorch", "tensorflow": "TensorFlow"}
# Programs that show what a framework itself prints.
_BY_HAND = {
    "jax": "import jax; print(jax.devices())",
    "torch": "import torch; print(torch.cuda.is_available())",
    "tensorflow": "import tensorflow; print(tensorflow.config.list_physical_devices())",
}


@dataclass(frozen=True)
class DeviceProblem:
    """Why a framework or a GPU cannot be used: `what` in one sentence, and what to do about it."""

    what: str
    next_step: str

    def __str__(self) -> str:
        return f"✗ {self.what}\n  → {self.next_step}"


@dataclass(frozen=True)
class Framework:
    """What one framework lists.

    Attributes:
        name: such as "JAX".
        version: such as "0.10.2".
        system: its devices.
        no_gpu: why it lists no GPU of NVIDIA's, whether or not there is one; None if it lists a GPU.
    """

    name: str
    version: str
    system: System
    no_gpu: DeviceProblem | None

    @property
    def gpus(self) -> int:
        """The number of GPUs that it lists."""
        return sum(device.platform == "gpu" for device in self.system.devices)

    def __str__(self) -> str:
        return f"{self.name} {self.version}\n\n{self.system}\n"


@dataclass(frozen=True)
class DeviceReport:
    """What was found out.

    Attributes:
        python: the path of the Python whose frameworks were asked.
        frameworks: those that answered.
        missing: the names of those that are not installed.
        gpus: the GPUs that `nvidia-smi` shows, each with the names of the frameworks that can use it.
        problems: frameworks that did not answer or use no GPU where there is one, and GPUs that none can use.
    """

    python: str
    frameworks: Sequence[Framework]
    missing: Sequence[str]
    gpus: Sequence[tuple[Gpu, list[str]]]
    problems: Sequence[DeviceProblem]

    def json(self) -> dict[str, Any]:
        """Return it as JSON values; memory in bytes."""
        return {
            "python": self.python,
            "frameworks": [{"name": one.name, "version": one.version, **one.system.json()} for one in self.frameworks],
            "missing": list(self.missing),
            "gpus": [
                {"index": gpu.index, "uuid": gpu.uuid, "name": gpu.name, "memory": gpu.memory, "usable_by": users}
                for gpu, users in self.gpus
            ],
            "problems": [asdict(problem) for problem in self.problems],
        }

    def __str__(self) -> str:
        lines = [str(one) for one in (*self.frameworks, *self.problems)]
        if self.missing:
            lines.append(f"Not installed in {self.python}: {', '.join(self.missing)}.")
        return "\n".join(lines)


def examine(cores: int | None = None, timeout: float = TIMEOUT) -> DeviceReport:
    """Ask every framework for its devices, and compare them with the GPUs that `nvidia-smi` shows.

    Args:
        cores: simulate so many cores on the CPU, as `haversack run --cores` does; None to simulate none.
        timeout: seconds in which a framework must answer.

    Raises `InputError` for a number of cores that cannot be simulated, and `OSError` if no process can be started.
    """
    python, variables = _python(os.environ), dict(os.environ)
    if cores is not None:
        variables |= devices.simulated(cores, variables)
    answers = _answers(python, variables, timeout)
    frameworks = [_framework(module, found) for module, found in answers.items() if "devices" in found]
    missing = [_NAMES[module] for module, found in answers.items() if not found["installed"]]
    problems = [_failed(python, module, found["error"]) for module, found in answers.items() if "error" in found]
    if cores is not None and _NAMES["jax"] in missing:
        problems.append(DeviceProblem("JAX, which simulates cores, is not installed.", "Install it: pip install jax"))
    elif len(missing) == len(answers):
        problems.append(DeviceProblem("No framework is installed.", "Install one, for example: pip install jax"))
    try:
        gpus = nvidia_smi.present()
    except JobError as error:
        return DeviceReport(python, frameworks, missing, [], [*problems, DeviceProblem(error.what, error.next_step)])
    visible = nvidia_smi.visible(gpus, variables.get(nvidia_smi.VISIBLE))
    used = [(gpu, _users(gpu, visible, frameworks)) for gpu in gpus]
    # A simulation uses no GPU on purpose.
    real = [one for one in frameworks if cores is None or one.name != _NAMES["jax"]]
    return DeviceReport(python, frameworks, missing, used, [*problems, *_without_gpu(used, visible, real)])


def _python(variables: Mapping[str, str]) -> str:
    """The path of the active virtual environment's Python; haversack's own without one."""
    active = Path(variables.get("VIRTUAL_ENV", ""), "bin", "python")
    return str(active) if active.is_absolute() and os.access(active, os.X_OK) else sys.executable


def _answers(python: str, variables: Mapping[str, str], timeout: float) -> dict[str, dict[str, Any]]:
    """What `framework_devices.answer` returns for each framework."""
    with ExitStack() as stack:
        started = {name: stack.enter_context(FrameworkProcess(python, name, variables)) for name in _NAMES}
        end = time.monotonic() + timeout
        return {module: process.answer(end, timeout) for module, process in started.items()}


def _framework(module: str, answer: Mapping[str, Any]) -> Framework:
    system = System(tuple(Device(**device) for device in answer["devices"]))
    no_gpu = None
    if "no_gpu" in answer:
        why, next_step = answer["no_gpu"]
        no_gpu = DeviceProblem(_masked(f"{_NAMES[module]} uses no GPU: {why}"), next_step)
    return Framework(_NAMES[module], answer["version"], system, no_gpu)


def _failed(python: str, module: str, error: str) -> DeviceProblem:
    by_hand = shlex.join([python, "-c", _BY_HAND[module]])
    return DeviceProblem(_masked(f"{_NAMES[module]} cannot be used: {error}"), f"See what it prints: {by_hand}")


def _masked(text: str) -> str:
    """A sentence with an error of a framework's, which may quote the environment, without secrets."""
    secrets = Secrets()
    secrets.add(*secret_values(os.environ))
    return secrets.mask(text)


def _users(gpu: Gpu, visible: Sequence[Gpu], frameworks: Sequence[Framework]) -> list[str]:
    """The names of the frameworks that can use `gpu`: CUDA gives them the first of the `visible` ones."""
    return [one.name for one in frameworks if gpu in visible[: one.gpus]]


def _without_gpu(
    used: Sequence[tuple[Gpu, list[str]]], visible: Sequence[Gpu], frameworks: Sequence[Framework]
) -> list[DeviceProblem]:
    """Why frameworks use none of the `visible` GPUs, and why GPUs are used by none.

    `used` has all GPUs, each with the names of those that can use it.
    """
    whys = [one.no_gpu for one in frameworks if one.no_gpu] if visible else []
    unused = [gpu for gpu, users in used if not users]
    hidden = [_hidden(gpu) for gpu in unused if gpu not in visible]
    # Where no framework uses any, each has said why.
    left = [_left(gpu) for gpu in unused if gpu in visible] if any(one.gpus for one in frameworks) else []
    return [*whys, *hidden, *left]


def _hidden(gpu: Gpu) -> DeviceProblem:
    what = f"{gpu} ({gpu.name}) is hidden by {nvidia_smi.VISIBLE}."
    return DeviceProblem(what, f"Unset {nvidia_smi.VISIBLE} to use it.")


def _left(gpu: Gpu) -> DeviceProblem:
    """Why no framework lists a GPU though one lists another."""
    if gpu.is_mig:
        what = f"{gpu} is not used: a process can use one MIG device only."
        return DeviceProblem(what, "Give each job one: haversack run --gpus 1")
    return DeviceProblem(f"{gpu} ({gpu.name}) is listed by no framework.", "Run `nvidia-smi -q` to see its state.")
