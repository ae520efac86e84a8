"""A tiny fit, interrupted inside an epoch and resumed: it must end with the bits of one that was not interrupted.

`support` runs this module in a process of its own with versions of Lightning that haversack was not tested with. The
process exits with status 1 and a last line that says what was wrong, or with status 0.
"""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import suppress
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from haversack.training.lightning import session
from haversack.training.lightning.fit import resumable_trainer
from haversack.training.lightning.package import PACKAGES, module
from haversack.training.rhythm import Rhythm

_EPOCHS, _INTERRUPTED_AT = 2, (1, 2)  # before gradients are applied


def main() -> None:
    """Raise an exception if the resumed fit differs from the whole one, or if anything fails."""
    session.RHYTHM = Rhythm(first=0.0, share=0.0, shortest=0.0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HAVERSACK_DATA"] = os.environ["HAVERSACK_CACHE"] = folder
        whole = _train("whole", folder)
        with suppress(KeyboardInterrupt, SystemExit):
            _train("resumed", folder, interrupt=True)
            raise AssertionError("an interrupted fit does not stop")
        resumed = _train("resumed", folder)
    assert resumed[1] == whole[1], "a resumed fit logs other metrics"
    assert resumed[0] == whole[0], "a resumed fit ends with other weights"


def _train(name: str, folder: str, interrupt: bool = False) -> tuple[list[bytes], dict[str, float]]:
    """Train the run `name`; return its weights as bytes, and its metrics."""
    package = os.environ.get("HAVERSACK_CANARY_OF", PACKAGES[0])
    base: Any = module(package)

    class TinyModule(base.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            layers = [torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1)]
            self.layers = torch.nn.Sequential(*layers)
            self.seen: list[float] = []

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1])
            self.seen.append(loss.item())
            self.log("loss", loss, on_step=True, on_epoch=True)
            self.log("seen", float(sum(self.seen)))
            if interrupt and (self.current_epoch, batch_idx) == _INTERRUPTED_AT:
                signal.raise_signal(signal.SIGINT)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("validation", torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.Adam(self.parameters(), 0.01)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    torch.manual_seed(1)
    data = TensorDataset(torch.rand(20, 3), torch.rand(20, 1))
    options = {"max_epochs": _EPOCHS, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder}
    trainer = base.Trainer(val_check_interval=2, accumulate_grad_batches=2, **options, **quiet)
    model = TinyModule()
    resumable_trainer(trainer, name, None).fit(model, DataLoader(data, 4, shuffle=True), DataLoader(data, 8))
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return [value.numpy().tobytes() for value in model.state_dict().values()], metrics


if __name__ == "__main__":
    main()
