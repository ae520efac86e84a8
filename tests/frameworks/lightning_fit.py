"""Lightning trainings that are killed in tests: `python -m tests.frameworks.lightning_fit FOLDER KIND…`.

As in `loop`, each kind is trained once without an interruption, and once over sessions that SIGKILL ends: in a step, in
a validation, in a callback, inside a save. Prints JSON: what both ended with, and what the sessions printed.
"""

import importlib
import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

import haversack
from haversack.training.checkpoints import failpoints
from haversack.training.lightning import session as ours
from haversack.training.rhythm import Rhythm
from tests.frameworks import loop
from tests.frameworks.loop import SAMPLES, Augmented, digest

EPOCHS, BATCH = 3, 4
BATCHES = SAMPLES // BATCH * EPOCHS
KILLS = {
    "plain": [("step", 4), ("validation", 10), ("epoch end", 1), ("step", 30)],
    "workers": [("step", 7), ("save", 15)],
    "accumulated": [("step", 5), ("step", 6), ("step", 25)],
    "manual": [("step", 3), ("validation", 22), ("step", 29)],
    "averaged": [("validation", 11), ("step", 27)],
    "metric": [("step", 9), ("validation", 22)],
    "streamed": [("step", 3), ("epoch end", 0), ("step", 26)],
    "combined": [("step", 8), ("step", 26)],
    "stopped": [("step", 5), ("step", 17)],
    "other package": [("step", 6), ("save", 20)],
    "mixed": [("step", 14)],
    "finetuned": [("step", 6), ("step", 19)],
}


class Streamed(IterableDataset):
    """Without a length, so Lightning fetches a batch ahead."""

    def __iter__(self):
        order = torch.randperm(SAMPLES)
        return (Augmented()[int(index)] for index in order)


def make(kind, kill, folder):
    """Model and trainer of a kind; `kill` is a moment, ("", 0) for none."""
    package = "pytorch_lightning" if kind == "other package" else "lightning.pytorch"
    pl = importlib.import_module(package)
    callbacks = importlib.import_module(f"{package}.callbacks")

    def at(moment, number):
        if (moment, number) == kill:
            os.kill(os.getpid(), signal.SIGKILL)

    class Net(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.body = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3))
            self.head = torch.nn.Linear(8, 1)
            self.batches = 0
            self.losses = []
            if kind == "metric":
                import torchmetrics

                self.error = torchmetrics.MeanSquaredError()
            self.automatic_optimization = kind != "manual"

        def on_train_batch_start(self, batch, batch_idx):
            while self.trainer.callbacks[0]._session._run.checkpoints.saving:
                time.sleep(0.001)

        def training_step(self, batch, batch_idx):
            x, y = batch["a"] if kind == "combined" else batch
            if kind == "combined":
                x = x + batch["b"][0][: len(x)].mean()
            self.batches += 1
            loss = torch.nn.functional.mse_loss(self.head(self.body(x)), y)
            if not self.automatic_optimization:
                loss = self.step_by_hand(x, y, loss)
            self.losses.append(loss.item())
            at("step", self.batches)
            self.log("loss", loss, on_step=True, on_epoch=True, prog_bar=True)
            self.log("seen", float(len(self.losses)), reduce_fx="max", on_epoch=True)
            if kind == "metric":
                self.error(self.head(self.body(x)), y)
                self.log("error", self.error, on_step=True, on_epoch=True)
            return loss

        def step_by_hand(self, x, y, loss):
            first, second = self.optimizers()
            first.zero_grad()
            self.manual_backward(loss)
            first.step()
            if self.batches % 2:  # the other one keeps its gradients over a batch
                self.manual_backward(torch.nn.functional.l1_loss(self.head(self.body(x)), y))
                second.step()
                second.zero_grad()
            self.lr_schedulers()[0].step()
            return loss

        def on_train_epoch_end(self):
            self.log("mean", sum(self.losses) / len(self.losses))
            self.losses.clear()
            at("epoch end", self.current_epoch)

        def validation_step(self, batch, batch_idx):
            if not self.trainer.sanity_checking:
                at("validation", self.batches)
            x, y = batch
            self.log("val", torch.nn.functional.mse_loss(self.head(self.body(x)), y))

        def configure_optimizers(self):
            if kind == "manual":
                first, second = torch.optim.Adam(self.body.parameters(), 0.01), torch.optim.SGD(self.parameters(), 0.01)
                schedule = torch.optim.lr_scheduler.ExponentialLR
                return [first, second], [schedule(first, 0.9), schedule(second, 0.9)]
            if kind == "finetuned":
                return torch.optim.SGD([one for one in self.parameters() if one.requires_grad], 0.01, momentum=0.9)
            optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
            if kind == "workers":
                steps = self.trainer.estimated_stepping_batches
                one = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=steps)
                return {"optimizer": optimizer, "lr_scheduler": {"scheduler": one, "interval": "step"}}
            if kind == "stopped":
                plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
                return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val"}}
            return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])]

    class Average(pl.Callback):
        """A moving average as people write it: without a state_dict."""

        def on_fit_start(self, trainer, module):
            self.shadow = {name: one.detach().clone() for name, one in module.named_parameters()}

        def on_train_batch_end(self, trainer, module, *arguments):
            for name, one in module.named_parameters():
                self.shadow[name].lerp_(one.detach(), 0.1)

    class Finetuning(callbacks.BaseFinetuning):
        def freeze_before_training(self, module):
            self.freeze(module.body)

        def finetune_function(self, module, epoch, optimizer):
            if epoch == 1:
                self.unfreeze_and_add_param_group(module.body, optimizer)

    class Rows(pl.loggers.Logger):
        """Appends what is logged to a file that all sessions of the run share."""

        name, version = "rows", 0

        def log_hyperparams(self, *arguments, **named):
            pass

        def log_metrics(self, metrics, step=None):
            with open(folder / "rows", "a") as file:
                file.write(json.dumps([step, metrics], sort_keys=True) + "\n")

    extra = {"averaged": [Average(), callbacks.EMAWeightAveraging(decay=0.8)] if kind == "averaged" else []}
    extra |= {"finetuned": [Finetuning()], "plain": [callbacks.LearningRateMonitor()]}
    patience = 1 if kind == "stopped" else 9
    trainer = pl.Trainer(
        max_epochs=9 if kind == "stopped" else EPOCHS,
        accelerator="cpu",
        callbacks=[
            callbacks.ModelCheckpoint(folder / "best", monitor="val", save_top_k=2, save_last=True),
            callbacks.EarlyStopping("val", patience=patience, min_delta=0.5 if kind == "stopped" else 0),
            *extra.get(kind, []),
        ],
        logger=Rows(),
        log_every_n_steps=3,
        val_check_interval=0.5 if kind == "plain" else 1.0,
        accumulate_grad_batches=3 if kind == "accumulated" else 1,
        gradient_clip_val=None if kind == "manual" else 1.0,
        precision="bf16-mixed" if kind == "mixed" else "32-true",
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    return Net(), trainer


def data(kind):
    """The loaders for training and validation."""
    if kind == "streamed":
        return DataLoader(Streamed(), BATCH), DataLoader(Augmented(), 8)
    workers = {"num_workers": 2, "persistent_workers": True} if kind == "workers" else {}
    train = DataLoader(Augmented(), BATCH, shuffle=True, **workers)
    if kind == "combined":
        train = {"a": train, "b": DataLoader(Augmented(), 16, shuffle=True)}
    generator = torch.Generator().manual_seed(5)
    return train, DataLoader(Augmented(), 8, shuffle=kind == "plain", generator=generator)


def train(kind, folder, kill):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    ours.RHYTHM = Rhythm(first=0.0, share=0.0, shortest=0.0)
    if kill[0] == "save":
        failpoints._NAME, failpoints._COUNT = "before-manifest", str(kill[1])
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    model, trainer = make(kind, kill, folder)
    loaders = data(kind)
    haversack.resumable(trainer, name="run", where=folder).fit(model, *loaders)
    return result(model, trainer, folder)


def result(model, trainer, folder):
    streams = [random.random(), float(np.random.random()), torch.rand(2)]
    states = [one.state_dict() for one in (model, *trainer.optimizers)]
    states += [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
    checkpoint, stopping = trainer.checkpoint_callback, trainer.early_stopping_callback
    shadows = [getattr(one, "shadow", None) for one in trainer.callbacks]
    logged = map(json.loads, (folder / "rows").read_text().splitlines())
    rows = {json.dumps([step, sorted(values)]): values for step, values in logged}
    return {
        "batches": model.batches,
        "weights": digest(*states),
        "streams": digest(streams),
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "rows": digest(dict(sorted(rows.items()))),
        "counters": [trainer.current_epoch, trainer.global_step, stopping.wait_count, stopping.stopped_epoch],
        "best": [Path(checkpoint.best_model_path).stem.partition("-v")[0], float(checkpoint.best_model_score)],
        "average": digest(shadows),
    }


def life(kind, folder, kills):
    """What a training over sessions that are killed at these moments ended with, and what each session printed."""
    sessions = [loop.session(kind, folder, kill, train) for kill in [*kills, ("", 0)]]
    found = (folder / "result").read_text() if (folder / "result").exists() else ""
    return {"result": found, "status": [one for one, _ in sessions], "printed": [text for _, text in sessions]}


if __name__ == "__main__":
    root = Path(sys.argv[1])
    importlib.import_module("lightning.pytorch")
    found = {}
    for kind in sys.argv[2:]:
        name = kind.replace(" ", "-")
        unbroken, killed = life(kind, root / f"{name}-unbroken", []), life(kind, root / f"{name}-killed", KILLS[kind])
        found[kind] = {"unbroken": unbroken, "killed": killed}
    print(json.dumps(found))
