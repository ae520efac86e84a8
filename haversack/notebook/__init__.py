"""The notebook: Colab notebooks executed here, unchanged. As an IPython extension it is what a kernel needs for that.

A job's kernel is started with `--ext haversack.notebook`; in any other kernel `%load_ext haversack.notebook` does the
same. It adds what is missing and replaces nothing: where the genuine `google.colab` is installed, that one is used.
"""

from __future__ import annotations

from typing import Any


def load_ipython_extension(ipython: Any) -> None:
    """Make `google.colab`, Colab's magics, the watch over secrets and, in a job, durable trainings available here."""
    from haversack.notebook import plainfit
    from haversack.notebook.colab import finder, magics
    from haversack.notebook.place import kaggle_command
    from haversack.notebook.secrets import watch

    finder.install()
    magics.register(ipython)
    watch.start(ipython)
    plainfit.start(ipython)
    ipython.events.register("pre_run_cell", lambda info: kaggle_command.prefer_key_file())
