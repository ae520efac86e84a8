"""Lightning's fits go on where they were, to the bit; what cannot be exact is trained plainly, and said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import haversack
from haversack import runs
from haversack.errors import TrainingError
from haversack.training.lightning import session
from haversack.training.rhythm import Rhythm
from tests.frameworks.conftest import Run
from tests.frameworks.lightning_fit import KILLS
from tests.notebook import notebooks

DATA = TensorDataset(torch.arange(24.0).reshape(12, 2), torch.arange(12.0).reshape(12, 1))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each kind of fit ended with, unbroken and killed."""
    command = [sys.executable, "-m", "tests.frameworks.lightning_fit", str(tmp_path_factory.mktemp("fits")), *KILLS]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


@pytest.mark.parametrize("kind", KILLS)
def test_a_fit_that_is_killed_ends_with_the_same_bits(killed: dict[str, Any], kind: str) -> None:
    unbroken, broken = killed[kind]["unbroken"], killed[kind]["killed"]
    assert unbroken["status"] == [0], unbroken["printed"]
    assert broken["status"] == [*[-9] * len(KILLS[kind]), 0], broken["printed"]
    assert json.loads(broken["result"]) == json.loads(unbroken["result"])
    assert "resumed at epoch" in broken["printed"][-1]


@pytest.fixture(autouse=True)
def save_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "RHYTHM", Rhythm(first=0.0, share=0.0, shortest=0.0))


class Net(pl.LightningModule):
    """Stops its process's fit with an error in the batch number `fail_at` of this session."""

    def __init__(self, width: int = 3, lr: float = 0.001, fail_at: int = 0) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Linear(width, 1))
        self.lr = lr
        self.fail_at = fail_at
        self.trained = 0

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.trainer.callbacks and hasattr(self.trainer.callbacks[0], "_session"):
            self.trainer.callbacks[0]._session._run.checkpoints.wait()
        self.trained += 1
        if self.trained == self.fail_at:
            raise RuntimeError("stopped")
        loss = torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.lr)


def fit(model: pl.LightningModule, data: Any = None, *, name: str = "net", epochs: int = 2, **options: Any) -> Any:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=epochs, enable_checkpointing=False, **quiet, **options)
    given = DataLoader(DATA, 4, shuffle=True) if data is None else data
    haversack.resumable(trainer, name=name).fit(model, given)
    return trainer


def stop(model: pl.LightningModule, data: Any = None, **options: Any) -> None:
    with pytest.raises(RuntimeError, match="stopped"):
        fit(model, data, **options)


def weights(model: torch.nn.Module) -> list[float]:
    return [one for value in model.state_dict().values() for one in value.flatten().tolist()]


def test_a_finished_run_is_loaded_and_not_trained(capfd: pytest.CaptureFixture[str]) -> None:
    first, again = Net(), Net()
    trained = fit(first)
    loaded = fit(again)
    assert weights(again) == weights(first)
    assert again.trained == 6  # the counter of the first session, not of a training
    assert loaded.callback_metrics["loss"] == trained.callback_metrics["loss"]
    assert (loaded.current_epoch, loaded.global_step) == (2, 6)
    assert "net: finished before; its state is loaded" in capfd.readouterr().err
    found = runs.show("net")
    assert (found.framework, found.finished) == ("lightning", True)
    assert [epoch.number for epoch in found.epochs] == [0, 1]


def test_more_epochs_go_on_where_the_run_ended() -> None:
    torch.manual_seed(1)
    whole = Net()
    fit(whole, name="whole", epochs=4)
    torch.manual_seed(1)
    fit(Net(), epochs=2)
    more = Net()
    assert fit(more, epochs=4).current_epoch == 4
    assert weights(more) == weights(whole)


def test_fewer_epochs_than_are_done_return_the_model_as_it_stands() -> None:
    model = Net(fail_at=8)
    stop(model, epochs=3)
    again = Net()
    fit(again, epochs=1)
    assert again.trained == 7


def test_another_model_and_other_data_are_refused_by_what_differs() -> None:
    stop(Net(fail_at=3))
    with pytest.raises(TrainingError, match="began with other objects: parameters"):
        fit(Net(width=5))
    with pytest.raises(TrainingError, match=r"began with other data: .*batch size 4, now 3"):
        fit(Net(), DataLoader(DATA, 3, shuffle=True))


def test_another_learning_rate_in_the_code_counts(capfd: pytest.CaptureFixture[str]) -> None:
    stop(Net(fail_at=3))
    trainer = fit(Net(lr=0.5e-3))
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.5e-3
    assert "optimizer 1: lr 0.001, now 0.0005 as in the code" in capfd.readouterr().err


def test_weights_that_diverge_are_said_and_not_saved(capfd: pytest.CaptureFixture[str]) -> None:
    fit(Net(lr=1e30))
    assert "model: NaN or infinity among the numbers" in capfd.readouterr().err
    assert not runs.show("net").finished


PLAIN: dict[str, tuple[dict[str, Any], Any, str]] = {
    "one batch": ({"fast_dev_run": 1}, None, "fast_dev_run"),
    "a reloaded loader": ({"reload_dataloaders_every_n_epochs": 1}, None, "reload_dataloaders_every_n_epochs"),
    "an iterator": ({}, lambda: iter([[DATA.tensors[0], DATA.tensors[1]]] * 6), "an iterator, which has a single pass"),
    "averaging": ({"callbacks": [pl.callbacks.StochasticWeightAveraging(0.1)]}, None, "WeightAveraging is saved"),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_what_cannot_be_exact_is_trained_plainly_and_said(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    options, data, reason = PLAIN[kind]
    model = Net()
    fit(model, data and data(), epochs=1 if data else 2, **options)
    assert model.trained > 0
    printed = capfd.readouterr().err
    assert printed.count("net: trained without checkpoints") == 1
    assert reason in printed


def test_a_state_that_no_checkpoint_can_hold_is_said_by_name(capfd: pytest.CaptureFixture[str]) -> None:
    class Odd(pl.Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"kind": torch.float32}

    model = Net()
    fit(model, callbacks=[Odd()])
    assert model.trained == 6
    assert "is a torch.dtype, which a checkpoint cannot hold" in capfd.readouterr().err


def test_other_batches_of_an_iterable_are_said(capfd: pytest.CaptureFixture[str]) -> None:
    stop(Net(fail_at=3), Shifted(0.0))
    fit(Net(), Shifted(0.5))
    assert "the data yields other batches than in the session before" in capfd.readouterr().err


class Shifted:
    """Batches that are no DataLoader, and may be others in another session."""

    def __init__(self, shift: float) -> None:
        self.shift = shift

    def __iter__(self) -> Any:
        return iter([[x + self.shift, y] for x, y in DataLoader(DATA, 4)])

    def __len__(self) -> int:
        return 3


def test_a_fit_after_another_is_a_run_of_its_own() -> None:
    model = Net()
    trainer = pl.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu")
    haversack.resumable(trainer, name="twice")
    trainer.fit(model, DataLoader(DATA, 4))
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, DataLoader(DATA, 4))
    assert model.trained == 6
    assert [runs.show(name).finished for name in ("twice", "twice.2")] == [True, True]


def test_the_canary_ends_with_the_same_bits_in_both_packages() -> None:
    code = (
        "import os\nfrom haversack.training.lightning import canary\n"
        "for package in ('lightning.pytorch', 'pytorch_lightning'):\n"
        "    os.environ['HAVERSACK_CANARY_OF'] = package\n"
        "    canary.main()"
    )
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"HAVERSACK_CANARY": "1"}, check=True)


def test_the_canary_sees_that_counters_are_not_restored() -> None:
    code = (
        "from haversack.training.lightning import canary, progress\n"
        "progress.restore_logged = lambda *arguments: None\ncanary.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"HAVERSACK_CANARY": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "a resumed fit logs other metrics" in done.stderr


def test_a_missing_private_name_is_told(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(session.FitSession, "fit_starts", None)
    monkeypatch.setattr("haversack.training.lightning.support._IN_LOOPS", ("fit_loop.gone",))
    model = Net()
    fit(model)
    assert model.trained == 6
    assert "has no gone, by which haversack saves and resumes fits" in capfd.readouterr().err


def test_the_fit_in_the_docs_runs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    block = page.partition("```py lightning\n")[2].partition("```")[0]
    subprocess.run([sys.executable, "-c", block], cwd=tmp_path, check=True)
    assert runs.show("own").finished


def test_plain_fit_in_a_notebook_resumes(run: Run, tmp_path: Path) -> None:
    notebook = notebooks.write(
        tmp_path / "fit.ipynb",
        f"""
import lightning as L, os, pathlib, time, torch
from torch.utils.data import DataLoader, TensorDataset
killed = pathlib.Path({str(tmp_path / "killed")!r})
class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.trained = 0
    def training_step(self, batch, batch_idx):
        self.trained += 1
        if self.trained == 20:
            time.sleep(3)  # the first save is due after two seconds
        if self.trained == 25 and not killed.exists():
            self.trainer.callbacks[0]._session._run.checkpoints.wait()
            killed.touch()
            os.system(f"kill -9 {{os.getpid()}}")
        return self.layer(batch[0]).sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)
""",
        """
model = Net()
trainer = L.Trainer(max_epochs=4, logger=False, enable_progress_bar=False)
trainer.fit(model, DataLoader(TensorDataset(torch.rand(60, 2)), 4, shuffle=True))
print(model.trained)
""",
    )
    executed = run(notebook, "--session", "1h")
    assert executed.last_line(2) == "60"
    assert "resumed at epoch 2, step" in executed.text(2)
    assert executed.report["sessions"] == 2
    assert [name.partition(".")[2] for name in executed.report["trainings"]] == ["cell-2.1"]  # type: ignore[attr-defined]
