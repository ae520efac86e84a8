"""`distribute()`: train on every core.

It replaces the cluster resolver and strategy of a TPU notebook, and the older `keras_to_tpu_model`. Every model that is
built after the call lives on all cores, and plain `fit`, `evaluate` and `predict` share each batch among them. The
module `batch` handles batches that do not divide.
"""

from __future__ import annotations

from haversack.training.devices import System, devices


def distribute() -> System:
    """Shard the batches of every model that is built from now on over all cores, and print a table of the cores.

    Call it before the model is built. It takes the place of

        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        strategy = tf.distribute.TPUStrategy(resolver)
        with strategy.scope(): …

    With one core it only prints. With several it replaces a distribution that was set with
    `keras.distribution.set_distribution`. It may be called again.

    Returns the `System`. Choose a `batch_size`, which counts the samples of all cores, that is a multiple of `cores`.

    Raises `ExtraMissing` if Keras or JAX is not installed, and `TrainingError` if Keras runs on another backend or is
    a version that haversack does not support.
    """
    system = System(tuple(devices()))
    if system.cores > 1:
        from haversack.training.keras import support

        support.check()
        from haversack.training.keras import batch

        batch.install()
    print(system)
    return system
