"""Execute Colab notebooks unchanged on machines that are not Colab. This package is also the kernel's IPython
extension.

A job involves two processes. The parent process (`haversack run`) starts a kernel, sends it the cells and writes the
executed notebook. The kernel process executes the cells. These modules run in the kernel: `kernel_launcher`,
`plainfit`, `streams`, `import_hook`, `files`, `uploads`, `environment_call`, `ending` (the parent reads what it and
`streams` wrote), `colab.*` (except `colab.hints`), of `kaggle` `finder`, `attached` and the modules that `finder` has,
`secrets.watch`, `place.sample_data`, `place.kaggle_sign_in` and `clients` (which also has a process of its own, as has
`place.kaggle_command`). `packages.on_demand` runs in the kernel too, `packages.pip_command` and `uv_command` in child
processes of it. `channel` is the kernel's side of the messages to the parent. `secrets.file` runs in both processes,
all others run in the parent.

A kernel's environment may hold nothing of haversack's but what `place.kernel_path` puts there. So the kernel's modules
import only the standard library, IPython, ipykernel and what it needs, the packages named there, and what the notebook
imports itself.

The parent starts the kernel with `--ext haversack.notebook`; `%load_ext haversack.notebook` does the same in any other
kernel. The extension adds what is missing and replaces nothing: an installed genuine `google.colab` is used as it is.
Only in a job does it also set Colab's or Kaggle's marks, so that a notebook that asks whether it runs there hears yes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load_ipython_extension(ipython: Any) -> None:
    """Install the `google.colab` finder and Colab's magics and, in a job, all that makes its kernel Colab's.

    That is: secret detection, reports of failed shell commands, durable `model.fit`, random streams that begin again
    where a training goes on, cells that end the kernel on purpose, Colab's marks with the changes to libraries that ask
    for them, packages on demand, notes about replaced packages, and the folder `sample_data`.

    IPython calls this in the kernel process with its shell, in a job with `/content` as the working directory. From
    then on, before each cell, a `kaggle.json` that the notebook wrote replaces the user's own Kaggle sign-in in the
    environment variables. Raises `OSError` if the job's folder cannot be written.
    """
    from haversack.notebook import channel, ending, plain_lightning, plainfit, streams
    from haversack.notebook.colab import exit_status, finder, libraries, magics, marks, restart
    from haversack.notebook.kaggle import finder as kaggle_finder
    from haversack.notebook.place import kaggle_sign_in, sample_data
    from haversack.notebook.secrets import watch
    from haversack.packages import on_demand

    job, is_colab = channel.job_folder(), channel.COLAB in channel.dialects()
    if job is None or is_colab:
        finder.install()
    magics.register(ipython)
    exit_status.install(ipython)
    watch.install(ipython)
    plainfit.install(ipython)
    plain_lightning.install()
    streams.install(ipython)
    ending.install(ipython)
    ipython.events.register("pre_run_cell", lambda info: kaggle_sign_in.prefer_key_file())
    libraries.install()
    marks.install(ipython)
    kaggle_finder.install_marks()
    if job is not None:
        restart.install(ipython)
        on_demand.install(Path.cwd())
        if is_colab:
            content = Path.cwd() if channel.dialects()[0] == channel.COLAB else job / "content"
            sample_data.write(content / "sample_data")
