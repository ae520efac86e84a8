"""Training on every core of the machine, with Keras on JAX."""
