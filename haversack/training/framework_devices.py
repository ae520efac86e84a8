"""The devices of JAX, PyTorch and TensorFlow, as each of them lists them.

`haversack devices` runs this file as a program in the Python that trains, one framework in each process. That Python
may have none of haversack's packages, so this file imports the standard library only, and a framework when it is asked.

Accelerators are listed; the CPU only where a framework has none, as in `jax.devices()`. Nothing joins a cluster.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pkgutil
import re
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax


@dataclass(frozen=True)
class Device:
    """One core: a device of a framework.

    Attributes:
        id: the framework's number of the device.
        kind: the framework's name of the model, such as "TPU v5 lite" or "cpu".
        platform: "cpu", "gpu" or "tpu".
        process: the number of the process that the device belongs to; JAX's, 0 with the others.
        memory: bytes that may be allocated on it; for a CPU device its share of the host's memory; None if unknown, as
            for devices of other processes and for TensorFlow's GPUs.
        found: what listed it, such as "jax.devices()", and whether it is simulated.
    """

    id: int
    kind: str
    platform: str
    process: int
    memory: int | None
    found: str


def of_jax() -> list[Device]:
    """Return JAX's devices, those of other JAX processes included, in JAX's order. Starts JAX in this process."""
    import jax

    found = jax.devices()
    processes = [device.process_index for device in found]
    return [
        Device(
            device.id,
            device.device_kind,
            device.platform,
            device.process_index,
            _memory_in_jax(device),
            # The CPU is one device, unless XLA_FLAGS or jax_num_cpu_devices divide it.
            "jax.devices(), simulated"
            if device.platform == "cpu" and processes.count(device.process_index) > 1
            else "jax.devices()",
        )
        for device in found
    ]


def of_torch() -> list[Device]:
    """Return PyTorch's GPUs, those of NVIDIA, AMD, Intel or Apple; the CPU if there are none."""
    import torch

    for name, module in (("torch.cuda", torch.cuda), ("torch.xpu", getattr(torch, "xpu", None))):
        if module is not None and module.is_available():
            properties = [module.get_device_properties(number) for number in range(module.device_count())]
            return [Device(number, one.name, "gpu", 0, one.total_memory, name) for number, one in enumerate(properties)]
    if torch.backends.mps.is_available():
        return [Device(0, "mps", "gpu", 0, None, "torch.mps")]
    return [Device(0, "cpu", "cpu", 0, _host_memory(), 'torch.device("cpu")')]


def of_tensorflow() -> list[Device]:
    """Return TensorFlow's physical GPUs and TPUs; the CPU if there are none."""
    import tensorflow

    listed = tensorflow.config.list_physical_devices()
    chosen = [device for device in listed if device.device_type in ("GPU", "TPU")]
    chosen = chosen or [device for device in listed if device.device_type == "CPU"]
    devices = []
    for number, device in enumerate(chosen):
        platform = device.device_type.lower()
        details = tensorflow.config.experimental.get_device_details(device) if platform == "gpu" else {}
        memory = _host_memory() if platform == "cpu" else None
        kind = details.get("device_name", platform)
        devices.append(Device(number, kind, platform, 0, memory, "tf.config.list_physical_devices()"))
    return devices


def _no_gpu_in_jax() -> tuple[str, str]:
    """Why JAX lists no GPU of NVIDIA's, in one sentence, and what to do."""
    import jax

    chosen = getattr(jax.config, "jax_platforms", None)
    if chosen and not {"gpu", "cuda"}.intersection(chosen.split(",")):
        return "JAX_PLATFORMS leaves out GPUs.", "Unset JAX_PLATFORMS."
    if not any(re.fullmatch(r"jax_cuda\d+_plugin", module.name) for module in pkgutil.iter_modules()):
        return "its plugin for CUDA is not installed.", 'Install it with pip install -U "jax[cuda12]".'
    try:
        jax.devices("cuda")
    except RuntimeError as error:
        return _first_line(error), "Compare the versions of NVIDIA's driver and of JAX's plugin for CUDA."
    return "it prefers another backend.", "Set JAX_PLATFORMS=cuda."


def _no_gpu_in_torch() -> tuple[str, str]:
    """Why PyTorch lists no GPU of NVIDIA's, in one sentence, and what to do."""
    import torch

    if torch.version.cuda is None:
        return "it is not a build for CUDA.", "Install that build: https://pytorch.org/get-started/locally/"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return _first_line(error), f"Install a driver for CUDA {torch.version.cuda}, or a build of PyTorch for yours."
    return "CUDA shows it none.", "Unset CUDA_VISIBLE_DEVICES."


def _no_gpu_in_tensorflow() -> tuple[str, str]:
    """Why TensorFlow lists no GPU of NVIDIA's, in one sentence, and what to do."""
    import tensorflow

    if not tensorflow.test.is_built_with_cuda():
        return "it is not a build for CUDA.", 'Install that build: pip install "tensorflow[and-cuda]".'
    return (
        "it does not find CUDA's libraries, or the driver refuses it.",
        'Install them with pip install "tensorflow[and-cuda]".',
    )


FRAMEWORKS = {
    "jax": (of_jax, _no_gpu_in_jax),
    "torch": (of_torch, _no_gpu_in_torch),
    "tensorflow": (of_tensorflow, _no_gpu_in_tensorflow),
}
"""For each framework's module: what lists its devices, and what says why it uses no GPU of NVIDIA's."""


def answer(module: str) -> dict[str, Any]:
    """Return what the framework `module`, a key of `FRAMEWORKS`, lists, as JSON values.

    {"installed": False}, or {"installed": True} with `error`, the exception that it raised, or with its `version`, its
    `devices` and, if none of these is a GPU, `no_gpu`: the reason and what to do.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:  # a folder of that name, without __init__.py, is no framework
        return {"installed": False}
    listed, no_gpu = FRAMEWORKS[module]
    try:
        devices = listed()
        found: dict[str, Any] = {"installed": True, "version": str(sys.modules[module].__version__)}
        found["devices"] = [asdict(device) for device in devices]
        if all(device.platform != "gpu" for device in devices):
            found["no_gpu"] = no_gpu()
    except Exception as error:  # noqa: BLE001 - whatever a framework raises is its answer
        return {"installed": True, "error": f"{type(error).__name__}: {_first_line(error)}"}
    return found


def main(module: str) -> None:
    """Print `answer(module)` as JSON on the standard output, where nothing else is printed, and end the process."""
    output = os.dup(1)
    os.dup2(2, 1)
    # This file's folder, which Python puts first, has rooms that are named like frameworks.
    here = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.realpath(path) != here]
    with os.fdopen(output, "w") as file:
        json.dump(answer(module), file)
    # A framework's own end may hang or crash, and the answer is complete.
    os._exit(0)


def _memory_in_jax(device: jax.Device) -> int | None:
    """The backend's allocation limit in bytes, or a CPU device's share of the host's memory; None if unknown.

    Devices of other processes are not asked.
    """
    import jax

    if device.process_index != jax.process_index():
        return None
    statistics = device.memory_stats() or {}
    if "bytes_limit" in statistics:
        return int(statistics["bytes_limit"])
    total = _host_memory() if device.platform == "cpu" else None
    return None if total is None else total // jax.local_device_count("cpu")


def _host_memory() -> int | None:
    """Bytes of memory of this machine; None if unknown."""
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _first_line(error: BaseException) -> str:
    """The first line of an error's message, which ends with a period."""
    text = str(error).strip().partition("\n")[0].rstrip(" .")
    return f"{text}." if text else "it says nothing."


if __name__ == "__main__":
    main(sys.argv[1])
