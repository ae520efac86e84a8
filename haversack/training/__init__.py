"""Training: Keras on JAX on every core of a machine, checkpoints that survive its loss, and the log of each run."""
