"""The marks by which notebooks and libraries recognize Colab, set in a job's kernel before its first cell.

`'google.colab' in sys.modules`, `'google.colab' in str(get_ipython())`, environment variables named `COLAB_*`, and
`import google.colab` in this process and in Python processes that cells start. The shell's class keeps its name and
module, by which other libraries recognize Jupyter. Variables that Colab's own services read, such as
`COLAB_NOTEBOOK_ID` and `TBE_RUNTIME_ADDR`, are not set, nor is `COLAB_TPU_ADDR`.

Nothing is set outside a job, and what is there already stays: on Colab the marks are Colab's own.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from haversack.notebook import channel
from haversack.notebook.place import children

_SHELL = "google.colab"
_FINDER = "haversack.notebook.colab.finder"


def install(ipython: Any) -> None:
    """Set the marks in this process, whose IPython shell is `ipython`. Does nothing outside a job.

    Nor does it in a job whose notebook was written for Kaggle.

    Raises `OSError` if the job's environment cannot be written.
    """
    job = channel.job_folder()
    if job is None or channel.COLAB not in channel.dialects():
        return
    importlib.import_module("google.colab")
    _name_in_repr(type(ipython))
    os.environ.setdefault("COLAB_RELEASE_TAG", "release-haversack")
    os.environ.setdefault("COLAB_GPU", "1" if has_gpu() else "0")
    children.install_finder(_FINDER, job)


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether this process may use an NVIDIA GPU: its device file is in `devices`, and CUDA may see one."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return any(devices.glob("nvidia[0-9]*"))


def _name_in_repr(shell: Any) -> None:
    """Let `repr` and `str` of objects of the class `shell` name google.colab. Its own name and module stay."""
    if _SHELL not in repr(shell):
        shell.__repr__ = lambda self: f"<{_SHELL}._shell.Shell object at {id(self):#x}>"
