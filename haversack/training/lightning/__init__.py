"""Lightning's `Trainer.fit` as a run, for both of its packages, `lightning.pytorch` and `pytorch_lightning`."""
