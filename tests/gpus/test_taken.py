"""GPUs among several jobs, in real processes: taken, waited for, released by whatever death."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from haversack.errors import InputError
from haversack.gpus import locks, taken
from haversack.gpus.nvidia_smi import present
from tests.gpus.conftest import StandIn, card
from tests.notebook import notebooks

LIMIT = 300  # seconds
# Takes GPUs, prints what it waits for and then what it got, and keeps them until a line comes.
_JOB = """
import json, sys
from haversack.gpus import taken
got = taken.take(int(sys.argv[1]), sys.argv[2], lambda text: print(text, flush=True))
print(json.dumps([str(gpu) for gpu in got.gpus]), flush=True)
sys.stdin.readline()
"""


class Process:
    """A process that takes GPUs as a job does."""

    def __init__(self, count: int, job: str, **environment: str) -> None:
        command = [sys.executable, "-c", _JOB, str(count), job]
        self.popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )

    def line(self) -> str:
        """The next line that it prints."""
        assert self.popen.stdout is not None
        waiting = select.poll()  # not select(2), which fails in a process with more than 1,024 files
        waiting.register(self.popen.stdout, select.POLLIN)
        assert waiting.poll(LIMIT * 1000), "it printed nothing"
        return self.popen.stdout.readline().strip()

    def end(self) -> None:
        """Let it end by itself."""
        self.popen.communicate("\n", timeout=LIMIT)


@pytest.fixture
def start(machine: StandIn) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start_one(*arguments: int | str, **environment: str) -> Process:
        started.append(Process(*arguments, **environment))  # type: ignore[arg-type]
        return started[-1]

    yield start_one
    for one in started:
        one.popen.kill()
        one.popen.communicate()


def take(count: int, **environment: str) -> taken.TakenGpus:
    def fail(text: str) -> None:
        raise AssertionError(text)

    return taken.take(count, "here", fail, environment)


def test_a_job_gets_what_is_free(machine: StandIn, start: Callable[..., Process]) -> None:
    first = start(1, "first")
    assert first.line() == '["GPU 0"]'
    with_second = take(1)
    assert with_second.variables == {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert locks.holder(present()[0]) == locks.GpuHolder("first", first.popen.pid)
    with_second.release()
    with_second.release()
    assert locks.holder(present()[1]) is None


def test_a_job_waits_for_the_one_that_holds_it_and_goes_on_by_itself(
    machine: StandIn, start: Callable[..., Process]
) -> None:
    machine.have(card(0))
    first = start(1, "first")
    assert first.line() == '["GPU 0"]'
    second = start(1, "second")
    held = f"GPU 0 is held by the job first (process {first.popen.pid})"
    assert second.line() == f"Waiting for a free GPU: {held}."
    first.end()
    assert second.line() == '["GPU 0"]'


def test_a_killed_job_releases_its_gpu(machine: StandIn, start: Callable[..., Process]) -> None:
    machine.have(card(0))
    first = start(1, "first")
    first.line()
    second = start(1, "second")
    second.line()
    first.popen.send_signal(signal.SIGKILL)
    assert second.line() == '["GPU 0"]'


def test_a_killed_job_keeps_its_gpu_while_its_kernel_lives(machine: StandIn) -> None:
    machine.have(card(0))
    got = take(1)
    kernel = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=got.locks)
    got.release()
    assert locks.holder(present()[0]) == locks.GpuHolder("here", os.getpid())
    kernel.kill()
    kernel.communicate()
    assert locks.holder(present()[0]) is None


def test_jobs_take_turns_in_the_order_in_which_they_came(machine: StandIn, start: Callable[..., Process]) -> None:
    """One that needs both is not passed for ever by those that need one."""
    first = start(1, "first")
    first.line()
    both = start(2, "both")
    assert "GPU 0 is held by the job first" in both.line()
    third = start(1, "third")
    assert third.line().endswith("both has waited longer.")
    first.end()
    assert both.line() == '["GPU 0", "GPU 1"]'
    both.end()
    assert third.line() == '["GPU 0"]'


def test_a_killed_job_leaves_the_queue(machine: StandIn, start: Callable[..., Process]) -> None:
    first = start(1, "first")
    first.line()
    both = start(2, "both")
    both.line()
    third = start(1, "third")
    third.line()
    both.popen.kill()
    assert third.line() == '["GPU 1"]'


def test_one_that_waits_for_another_gpu_is_not_before(machine: StandIn, start: Callable[..., Process]) -> None:
    start(1, "first", CUDA_VISIBLE_DEVICES="0").line()
    start(1, "second", CUDA_VISIBLE_DEVICES="0").line()
    assert start(1, "third", CUDA_VISIBLE_DEVICES="1").line() == '["GPU 1"]'


def test_a_gpu_that_other_programs_use_is_waited_for(machine: StandIn, start: Callable[..., Process]) -> None:
    machine.use({"GPU-0": "9000"})
    machine.run({"GPU-1": [77]})
    waiting = start(1, "first")
    assert waiting.line() == "Waiting for a free GPU: 9.4 GB of GPU 0 are in use; GPU 1 is used by process 77."
    machine.run({})
    assert waiting.line() == '["GPU 1"]'


def test_ctrl_c_ends_the_waiting(machine: StandIn, start: Callable[..., Process]) -> None:
    machine.use({"GPU-0": "9000", "GPU-1": "9000"})
    waiting = start(1, "first")
    waiting.line()
    waiting.popen.send_signal(signal.SIGINT)
    waiting.popen.communicate(timeout=LIMIT)
    machine.use({})
    take(2).release()


def test_zero_hides_all(machine: StandIn) -> None:
    assert take(0).variables == {"CUDA_VISIBLE_DEVICES": ""}
    assert take(0).locks == ()


def test_the_users_choice_limits_which_are_taken(machine: StandIn) -> None:
    got = take(1, CUDA_VISIBLE_DEVICES="GPU-1,0")
    assert got.variables["CUDA_VISIBLE_DEVICES"] == "1"
    got.release()


def test_on_a_divided_gpu_devices_are_named_by_uuid(machine: StandIn) -> None:
    machine.have(card(0), "  MIG 1g.5gb      Device  0: (UUID: MIG-aa)", card(1))
    first, second = take(1), take(1)
    assert [first.variables, second.variables] == [
        {"CUDA_VISIBLE_DEVICES": "MIG-aa"},
        {"CUDA_VISIBLE_DEVICES": "GPU-1"},
    ]
    first.release()
    second.release()


@pytest.mark.parametrize(
    ("count", "visible", "said"),
    [
        (3, None, "--gpus 3 is more than there are: this machine has 2. Ask for fewer GPUs."),
        (2, "1", "this machine has 2, and CUDA_VISIBLE_DEVICES allows 1."),
        (1, "", "this machine has 2, and CUDA_VISIBLE_DEVICES allows 0."),
        (-1, None, "A job cannot have -1 GPUs."),
    ],
)
def test_more_than_there_are_is_an_error_at_once(machine: StandIn, count: int, visible: str | None, said: str) -> None:
    with pytest.raises(InputError) as raised:
        taken.check(count, {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    assert said in str(raised.value)


def test_several_mig_devices_are_refused(machine: StandIn) -> None:
    parts = [f"  MIG 1g.5gb      Device  {number}: (UUID: MIG-{number})" for number in range(2)]
    machine.have(card(0), *parts)
    with pytest.raises(InputError, match="one MIG device only"):
        taken.check(2, {})


def test_without_a_gpu_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="has none that nvidia-smi shows"):
        taken.check(1, {})
    taken.check(0, {})


# Whole jobs

CELL = "import os\nprint(os.environ['CUDA_VISIBLE_DEVICES'], os.environ.get('COLAB_GPU'))"


def run(folder: Path, name: str, sources: list[str], *arguments: str) -> subprocess.Popen[str]:
    notebook = notebooks.write(folder / f"{name}.ipynb", *sources)
    command = [
        sys.executable,
        "-m",
        "haversack",
        "run",
        str(notebook),
        "-o",
        str(folder / f"{name}.out.ipynb"),
        *arguments,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)


def wait_for(file: Path) -> None:
    end = time.monotonic() + LIMIT
    while not file.exists():
        assert time.monotonic() < end, file
        time.sleep(0.05)


def test_a_job_waits_for_another_and_ctrl_c_ends_it_with_130(machine: StandIn, tmp_path: Path) -> None:
    machine.have(card(0))
    started, stop = tmp_path / "started", tmp_path / "stop"
    source = (
        f"{CELL}\nimport time\nopen({str(started)!r}, 'w')\nwhile not os.path.exists({str(stop)!r}): time.sleep(0.05)"
    )
    first = run(tmp_path, "first", [source], "--gpus", "1", "--json")
    wait_for(started)
    second, third = (run(tmp_path, name, [CELL], "--gpus", "1") for name in ("second", "third"))
    for waiting in (second, third):
        assert waiting.stderr is not None
        line = next(line for line in waiting.stderr if "Waiting" in line)
        assert "GPU 0 is held by the job first-" in line
    third.send_signal(signal.SIGINT)
    third.communicate(timeout=LIMIT)
    assert third.returncode == 130
    stop.touch()
    report = json.loads(first.communicate(timeout=LIMIT)[0])
    assert report["status"] == "done"
    second.communicate(timeout=LIMIT)
    assert second.returncode == 0
    assert notebooks.text(tmp_path / "second.out.ipynb", 0).startswith("0 ")


def test_a_job_keeps_its_gpu_over_its_sessions(machine: StandIn, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    source = (
        "import os, signal\n"
        f"with open({str(seen)!r}, 'a') as file: print(os.environ['CUDA_VISIBLE_DEVICES'], file=file)\n"
        f"if os.path.getsize({str(seen)!r}) < 3: os.kill(os.getpid(), signal.SIGKILL)"
    )
    job = run(tmp_path, "job", [source, "print('done')"], "--gpus", "1")
    job.communicate(timeout=LIMIT)
    assert (job.returncode, seen.read_text()) == (0, "0\n0\n")


def test_more_gpus_than_there_are_make_no_job(machine: StandIn, tmp_path: Path, own_folders: Path) -> None:
    job = run(tmp_path, "job", [CELL], "--gpus", "9")
    _, error = job.communicate(timeout=LIMIT)
    assert job.returncode == 2
    assert error == "haversack: --gpus 9 is more than there are: this machine has 2. Ask for fewer GPUs.\n"
    assert not (own_folders / "data" / "jobs").exists()
