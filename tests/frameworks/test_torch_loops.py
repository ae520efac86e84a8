"""PyTorch loops go on where they were, to the bit; what a checkpoint cannot hold or does not fit is said by name."""

from __future__ import annotations

import collections
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import haversack
from haversack import runs
from haversack.errors import InputError, TrainingError
from haversack.training.checkpoints.snapshot import Buffers, rebuild
from haversack.training.loops import loop
from haversack.training.rhythm import Rhythm
from haversack.training.state_tree import decode, encode

KINDS = ["plain", "workers", "generator", "weighted", "distributed", "streamed", "stateful"]
KINDS += ["accumulated", "mixed", "compiled"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each kind of loop ended with, unbroken and killed."""
    command = [sys.executable, "-m", "tests.frameworks.loop", str(tmp_path_factory.mktemp("loops")), *KINDS]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_that_is_killed_ends_with_the_same_bits(killed: dict[str, Any], kind: str) -> None:
    assert killed[kind]["unbroken"]["status"] == [0], killed[kind]["unbroken"]["printed"]
    assert killed[kind]["killed"]["status"] == [-9, -9, -9, 0], killed[kind]["killed"]["printed"]
    assert killed[kind]["killed"]["result"] == killed[kind]["unbroken"]["result"]
    assert "other batches" not in "".join(killed[kind]["killed"]["printed"])


@pytest.fixture(autouse=True)
def save_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "RHYTHM", Rhythm(first=0.0, share=0.0, shortest=0.0, largest_share=0.0))


def through(value: Any, like: Any = None) -> Any:
    """A value as a checkpoint would give it back."""
    copied = Buffers().copy(encode(value))
    return decode(rebuild(json.loads(json.dumps(copied.structure)), copied.arrays), like)


DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.complex64, torch.bool, torch.int64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_come_back_exactly(dtype: torch.dtype) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    back = through({"t": tensor})["t"]
    assert back.dtype == dtype
    assert torch.equal(back.float(), tensor.float()) if dtype != torch.complex64 else torch.equal(back, tensor)


def test_bfloat16_needs_no_other_package() -> None:
    tree = encode({"t": torch.ones(2, dtype=torch.bfloat16)})
    assert tree["t"]["value"].dtype == torch.int16


def test_a_sparse_tensor_comes_back() -> None:
    tensor = torch.eye(3).to_sparse()
    assert torch.equal(through(tensor).to_dense(), torch.eye(3))


def test_a_counter_stays_one() -> None:
    scheduler = torch.optim.lr_scheduler.MultiStepLR(torch.optim.SGD([torch.ones(1)], lr=0.1), [3, 5])
    back = through(scheduler.state_dict(), scheduler.state_dict())
    assert type(back["milestones"]) is collections.Counter
    assert back == scheduler.state_dict()


REFUSED: dict[str, Callable[[], Any]] = {
    "a quantized tensor": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "a meta tensor": lambda: torch.ones(2, device="meta"),
    "layout torch.sparse_csr": lambda: torch.eye(2).to_sparse_csr(),
    "a torch.dtype": lambda: torch.float32,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("words", REFUSED)
def test_what_a_checkpoint_cannot_hold_is_refused_by_name(words: str) -> None:
    with pytest.raises(InputError, match=f"metric/total is .*{words}"):
        encode({"total": REFUSED[words]()}, "metric")


def test_the_state_of_an_optimizer_is_restored_before_its_first_step() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    with haversack.Checkpoints("case") as checkpoints:
        checkpoints.save(1, {"opt": optimizer.state_dict()}, wait=True)
    fresh = torch.optim.Adam(model.parameters())
    restored = haversack.Checkpoints("case").restore(like={"opt": fresh.state_dict()})
    assert restored is not None
    fresh.load_state_dict(restored.tree["opt"])
    for parameter in model.parameters():
        assert torch.equal(fresh.state[parameter]["exp_avg"], optimizer.state[parameter]["exp_avg"])


DATA = TensorDataset(torch.arange(12.0).reshape(6, 2))


class Net(torch.nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.first = torch.nn.Linear(2, 3, dtype=dtype)
        self.last = torch.nn.Linear(3, 1, dtype=dtype)
        self.register_buffer("counted", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.counted += 1
        return self.last(self.first(x.to(self.first.weight.dtype)))


def train(net: Net, optimizer: Any, leave_at: int = 0, freeze: bool = False, workers: int = 0, **given: Any) -> int:
    """Train 2 epochs of 3 batches; leave the loop in the batch number `leave_at`. Returns the batches trained."""
    loader = DataLoader(DATA, 2, num_workers=workers)
    run = haversack.resumable(loader, name="net", model=net, optimizer=optimizer, **given)
    trained = 0
    for _ in run.epochs(2):
        for (x,) in run:
            run._run.checkpoints.wait()
            trained += 1
            if trained == leave_at:
                run.close()
                return trained
            optimizer.zero_grad()
            net(x).sum().backward()
            optimizer.step()
            if freeze:
                net.first.requires_grad_(False)
    return trained


def sgd(net: Net, lr: float = 0.01) -> torch.optim.SGD:
    return torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)


def test_a_model_and_its_optimizer_are_restored_in_place() -> None:
    net, again = Net(), Net()
    train(net, sgd(net), leave_at=5)
    optimizer = sgd(again)
    parameters, groups = [id(one) for one in again.parameters()], [id(one) for one in optimizer.param_groups]
    assert train(again, optimizer) == 2
    assert [id(one) for one in again.parameters()] == parameters
    assert [id(one) for one in optimizer.param_groups] == groups
    assert again.counted == 6  # a buffer that state_dict leaves out
    assert runs.show("net").framework == "torch"


def test_moments_keep_their_precision() -> None:
    net, again = Net(torch.bfloat16), Net(torch.bfloat16)
    optimizer = sgd(net)
    for parameter in net.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.full_like(parameter, 1 / 3, dtype=torch.float32)
    run = haversack.resumable(DATA, name="precise", model=net, optimizer=optimizer)
    next(run.epochs(1))
    run._run.save_last()
    run._run.checkpoints.wait()
    restored = sgd(again)
    run = haversack.resumable(DATA, name="precise", model=again, optimizer=restored)
    assert list(run.epochs(1)) == []
    assert restored.state[again.last.weight]["momentum_buffer"][0, 0].item() == np.float32(1 / 3)


def test_layers_that_training_froze_are_frozen_again_and_the_codes_choice_counts(
    capfd: pytest.CaptureFixture[str],
) -> None:
    net, again, other = Net(), Net(), Net()
    train(net, sgd(net), leave_at=4, freeze=True)
    train(again, sgd(again), leave_at=2)
    assert not again.first.weight.requires_grad
    other.last.requires_grad_(False)
    train(other, sgd(other))
    assert other.first.weight.requires_grad
    assert "model: which parameters are frozen was changed in the code" in capfd.readouterr().err


def test_another_learning_rate_in_the_code_counts(capfd: pytest.CaptureFixture[str]) -> None:
    net, again = Net(), Net()
    train(net, sgd(net), leave_at=4)
    optimizer = sgd(again, lr=0.5)
    train(again, optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert "optimizer: lr 0.01, now 0.5 as in the code" in capfd.readouterr().err


def test_another_learning_rate_under_a_scheduler_is_refused() -> None:
    net, again = Net(), Net()
    first, second = sgd(net), sgd(again, lr=0.5)
    train(net, first, leave_at=4, scheduler=torch.optim.lr_scheduler.StepLR(first, 5))
    with pytest.raises(TrainingError, match=r"optimizer began this run with lr 0\.01 and has 0\.5 in the code"):
        train(again, second, scheduler=torch.optim.lr_scheduler.StepLR(second, 5))


def test_weights_that_diverged_are_said_and_not_saved(capfd: pytest.CaptureFixture[str]) -> None:
    net, again = Net(), Net()
    assert train(net, sgd(net, lr=1e30)) == 6
    assert "net: model: NaN or infinity among the numbers at epoch 1, step" in capfd.readouterr().err
    assert runs.show("net").sessions[0].outcome == "failed"
    train(again, sgd(again, lr=0.001))
    assert all(parameter.isfinite().all() for parameter in again.parameters())
    assert runs.show("net").finished


def test_another_model_is_refused_by_what_differs() -> None:
    net, other = Net(), Net()
    train(net, sgd(net), leave_at=4)
    other.last = torch.nn.Linear(3, 2)
    with pytest.raises(TrainingError, match=r"model is not what this run began with: .*size mismatch for last\.weight"):
        train(other, sgd(other))


def test_another_number_of_workers_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    net, again = Net(), Net()
    train(net, sgd(net), leave_at=4)
    train(again, sgd(again), workers=1)
    assert "num_workers 0, now 1" in capfd.readouterr().err


def test_batches_that_are_done_are_not_read_again() -> None:
    read: list[int] = []

    class Noted(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> int:
            read.append(index)
            return index

    def look(leave_at: int) -> None:
        run = haversack.resumable(DataLoader(Noted(), 2, shuffle=True), name="noted", total=[])
        for _ in run.epochs(1):
            for number, _ in run.enumerate():
                run._run.checkpoints.wait()
                if number == leave_at:
                    run.close()
                    return

    look(leave_at=2)
    before = len(read)
    look(leave_at=9)
    assert (before, sorted(read[:4] + read[before:])) == (6, [0, 1, 2, 3, 4, 5])


def test_torchs_iterators_have_the_private_names() -> None:
    loader = DataLoader(DATA, 2)
    assert iter(loader)._next_index() == [0, 1]  # type: ignore[attr-defined]
    assert hasattr(loader, "_iterator")


def test_the_loop_in_the_docs_runs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    [block] = re.findall(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    subprocess.run([sys.executable, "-c", block], cwd=tmp_path, check=True)
    assert [epoch.number for epoch in runs.show("own").epochs] == [0, 1, 2, 3, 4]


def test_haversack_does_not_import_torch() -> None:
    code = "import sys, haversack; haversack.resumable; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_two_processes_train_without_checkpoints(tmp_path: Path) -> None:
    code = (
        "import sys, torch, haversack; rank = int(sys.argv[1]);"
        "torch.distributed.init_process_group('gloo', init_method='file://' + sys.argv[2], rank=rank, world_size=2);"
        "run = haversack.resumable([1, 2], name='two', model=torch.nn.Linear(1, 1));"
        "assert [list(run) for _ in run.epochs(2)] == [[1, 2], [1, 2]]; torch.distributed.destroy_process_group()"
    )
    command = [sys.executable, "-c", code]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meeting")], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert "two: trained without checkpoints: 2 processes train together" in printed[0]
    assert not (Path(os.environ["HAVERSACK_DATA"]) / "runs").exists()
