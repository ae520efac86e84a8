"""What `haversack devices` lists, of JAX itself and of frameworks that hang, crash and raise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from haversack.device_report import examine

StandIn = Callable[[str, str], None]

# Runs the command, and says at the end which frameworks this process imported.
_COMMAND = """
import sys
from haversack.cli import main
try:
    main(["devices", *sys.argv[1:]])
finally:
    print({"jax", "torch", "tensorflow"} & set(sys.modules), file=sys.stderr)
"""


def devices(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", _COMMAND, *arguments], capture_output=True, text=True)


_TORCH_WITH_ONE_GPU = """
from types import SimpleNamespace
__version__ = "2.13.0"
gpu = SimpleNamespace(name="Tesla T4", total_memory=16 << 30)
cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 1, get_device_properties=lambda number: gpu)
"""


@pytest.fixture(autouse=True)
def no_active_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python that runs the tests is asked, and nothing chooses its devices."""
    for name in ("VIRTUAL_ENV", "XLA_FLAGS", "JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`gpus(lines)`: an nvidia-smi on the PATH whose `-L` prints these lines."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def show(lines: str) -> None:
        (tmp_path / "list").write_text(lines)
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n[ $1 != -L ] || cat {tmp_path}/list\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    return show


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """`stand_in("torch", text)`: a package that takes the framework's place, whose import runs `text`.

    The three frameworks are replaced, so that the tests do not wait for them.
    """
    folder = tmp_path / "packages"
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def write(name: str, text: str) -> None:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "__init__.py").write_text(text)

    for name in ("jax", "torch", "tensorflow"):
        write(name, "raise ImportError('not now')")
    return write


def test_eight_simulated_cores_are_eight_and_nothing_is_imported_here() -> None:
    done = devices("--cores", "8", "--json")
    assert (done.returncode, done.stderr) == (0, "set()\n")
    found = json.loads(done.stdout)
    jax = found["frameworks"][0]
    assert (jax["name"], jax["cores"], jax["workers"], jax["cores_per_worker"]) == ("JAX", 8, 1, 8)
    assert {(one["kind"], one["platform"], one["process"], one["found"]) for one in jax["devices"]} == {
        ("cpu", "cpu", 0, "jax.devices(), simulated")
    }
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert [one["memory"] for one in jax["devices"]] == [total // 8] * 8


def test_without_a_simulation_the_cpu_is_one_core() -> None:
    found = examine()
    jax = found.frameworks[0]
    assert [(one.platform, one.found) for one in jax.system.devices] == [("cpu", "jax.devices()")]
    assert str(found).startswith(
        f"JAX {jax.version}\n\nCores:            1\nWorkers:          1\nCores per worker: 1\n"
    )


def test_a_number_of_cores_that_cannot_be_simulated_is_refused() -> None:
    done = devices("--cores", "0")
    assert done.returncode == 2
    assert done.stderr.startswith("haversack: 0 cores cannot be simulated. Give --cores a number of at least 1.")


def test_a_framework_that_raises_is_one_line(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "q8dm30s2kx")
    stand_in("torch", "import os; raise OSError('no library; ' + os.environ['SERVICE_TOKEN'] + '\\nmore')")
    torch = examine().problems[1]
    assert torch.what == "PyTorch cannot be used: OSError: no library; ***."
    assert torch.next_step.startswith(f"See what it prints: {sys.executable} -c 'import torch;")


def test_a_framework_that_crashes_is_one_line(stand_in: StandIn) -> None:
    stand_in("torch", "import os; os.abort()")
    stand_in("tensorflow", "import os; os._exit(3)")
    assert [one.what for one in examine().problems] == [
        "JAX cannot be used: ImportError: not now.",
        "PyTorch cannot be used: its process ended with signal 6, Aborted.",
        "TensorFlow cannot be used: its process ended with status 3.",
    ]


def test_a_framework_that_hangs_is_one_line_and_is_killed(stand_in: StandIn, tmp_path: Path) -> None:
    hung = tmp_path / "pid"
    stand_in("torch", f"import os, time; open({str(hung)!r}, 'w').write(str(os.getpid())); time.sleep(3600)")
    for timeout in (2.0, 30.0):  # a slow machine starts nothing in two seconds
        found = examine(timeout=timeout)
        if hung.exists() and hung.read_text():
            break
    assert f"PyTorch cannot be used: it did not answer within {timeout:.0f} s." in [one.what for one in found.problems]
    with pytest.raises(ProcessLookupError):
        os.kill(int(hung.read_text()), 0)


def test_what_a_framework_prints_is_no_answer(stand_in: StandIn) -> None:
    stand_in("torch", "print('hello'); import os; os.system('echo hello'); raise ImportError('not now')")
    assert examine().problems[1].what == "PyTorch cannot be used: ImportError: not now."


def test_the_active_environment_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "env", symlinks=True)
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "env"))
    found = examine()
    assert found.python == str(tmp_path / "env" / "bin" / "python")
    assert found.missing == ["JAX", "PyTorch", "TensorFlow"]
    assert [one.what for one in found.problems] == ["No framework is installed."]
    assert str(found).endswith(f"Not installed in {found.python}: JAX, PyTorch, TensorFlow.")


def test_a_gpu_that_jax_cannot_use_is_said(gpus: Callable[[str], None]) -> None:
    gpus("GPU 0: Tesla T4 (UUID: GPU-a)\n")
    found = json.loads(devices("--json").stdout)
    assert [(one["name"], one["usable_by"]) for one in found["gpus"]] == [("Tesla T4", [])]
    jax = "JAX uses no GPU: its plugin for CUDA is not installed."
    assert {"what": jax, "next_step": 'Install it with pip install -U "jax[cuda12]".'} in found["problems"]
    # A simulation uses none on purpose.
    assert jax not in [one["what"] for one in json.loads(devices("--json", "--cores", "2").stdout)["problems"]]


def test_gpus_that_are_used_hidden_and_left(
    gpus: Callable[[str], None], stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in("torch", _TORCH_WITH_ONE_GPU)
    gpus(
        "GPU 0: Tesla T4 (UUID: GPU-a)\n"
        "  MIG 1g.5gb      Device  0: (UUID: MIG-aa)\n"
        "  MIG 1g.5gb      Device  1: (UUID: MIG-ab)\n"
        "GPU 1: Tesla T4 (UUID: GPU-b)\n"
        "GPU 2: Tesla T4 (UUID: GPU-c)\n"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-aa,MIG-ab,2")
    found = examine()
    torch = found.frameworks[0]
    assert [(one.kind, one.platform, one.memory, one.found) for one in torch.system.devices] == [
        ("Tesla T4", "gpu", 16 << 30, "torch.cuda")
    ]
    assert [(gpu.uuid, users) for gpu, users in found.gpus] == [
        ("MIG-aa", ["PyTorch"]),
        ("MIG-ab", []),
        ("GPU-b", []),
        ("GPU-c", []),
    ]
    assert [one.what for one in found.problems[2:]] == [
        "GPU 1 (Tesla T4) is hidden by CUDA_VISIBLE_DEVICES.",
        "MIG device MIG-ab of GPU 0 is not used: a process can use one MIG device only.",
        "GPU 2 (Tesla T4) is listed by no framework.",
    ]


def test_an_nvidia_smi_that_fails_costs_a_line(tmp_path: Path, stand_in: StandIn, gpus: Callable[[str], None]) -> None:
    gpus("")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed.'\nexit 9\n")
    assert examine().problems[-1].what == "nvidia-smi fails: NVIDIA-SMI has failed."
