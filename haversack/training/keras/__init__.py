"""Keras on JAX: `fit` with checkpoints inside the epoch, and training on every core."""
