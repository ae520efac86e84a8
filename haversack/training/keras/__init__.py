"""Keras on JAX: `fit` with checkpoints inside the epoch, and data parallelism over all cores."""
