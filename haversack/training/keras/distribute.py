"""`distribute()`: train on every core.

It does today what a TPU notebook once did with a cluster resolver and a strategy, or with `keras_to_tpu_model`: after
it, every model that is built lives on all cores, and plain `fit`, `evaluate` and `predict` share each batch among them.
Batches that do not divide are left to `batch`.
"""

from __future__ import annotations

from haversack.training.devices import System, devices


def distribute() -> System:
    """Train on every core from now on, and print them as a TPU system would list them.

    Call it before the model is built. It replaces

        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        strategy = tf.distribute.TPUStrategy(resolver)
        with strategy.scope(): …

    With one core only the listing happens. Calling it twice is safe. A distribution that was set with
    `keras.distribution.set_distribution` is replaced.

    Returns the `System`; make the global batch size a multiple of its `cores`.
    Raises `ExtraMissing` without Keras and JAX, `TrainingError` if Keras runs on another backend.
    """
    system = System(tuple(devices()))
    if system.cores > 1:
        from haversack.training.keras import batch

        batch.install()
    print(system)
    return system
