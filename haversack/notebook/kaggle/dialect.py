"""Which platform a notebook was written for: Colab, Kaggle, or both.

Runs in the process of `haversack run`. The dialect is told from the cells' paths, imports and environment variables,
and from the metadata that Kaggle writes. It decides three things:

    folders   whether the job has `/kaggle` beside `/content`: if anything speaks of Kaggle
    marks     which platform's marks the kernel gets (`colab.marks`, the variables below): those of the primary dialect,
              and of the other one only if a cell imports its package without a `try`
    cwd       `/kaggle/working` if Kaggle is the primary dialect, else `/content`

A notebook that names neither gets Colab's marks. One that names both asks in its cells where it runs. There the
attached inputs decide: with them, or with Kaggle's metadata, the answer is Kaggle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack.notebook.channel import COLAB, DIALECT_VARIABLE, KAGGLE
from haversack.packages.imports import code_cells, needs

OWN_MARKS = "HAVERSACK_KAGGLE_MARKS"
"""Set in a kernel whose `KAGGLE_…` variables are a job's marks: the machine is not Kaggle's (see `haversack.place`)."""

_KAGGLE_MODULES = {"kaggle_secrets", "kaggle_datasets", "kaggle_web_client", "kaggle_gcp"}
_KAGGLE = re.compile(
    r"/kaggle/(?:input|working|temp|tmp)\b|\.\./input\b|\bKAGGLE_(?:KERNEL_RUN_TYPE|URL_BASE"
    r"|DATA_PROXY_\w+|USER_SECRETS_TOKEN|IS_COMPETITION_RERUN)\b|\bkaggle_(?:secrets|datasets|web_client)\b"
)
_COLAB = re.compile(r"google\.colab|(?<![\w./~-])/content\b|\bCOLAB_\w+|%tensorflow_version|#@(?:param|title)\b")
# What Kaggle sets for a notebook that runs from its first cell to its last, as here.
_MARKS = {
    "KAGGLE_KERNEL_RUN_TYPE": "Batch",
    "KAGGLE_URL_BASE": "https://www.kaggle.com",
    "KAGGLE_WORKING_DIR": "/kaggle/working",
}


@dataclass(frozen=True)
class Dialect:
    """The dialect of one notebook.

    Attributes:
        marks: the platforms whose marks the kernel gets, the primary dialect first.
        has_kaggle: whether the job has a `/kaggle`.
        names_new_paths: whether a cell uses Kaggle's newer paths, `/kaggle/input/datasets/OWNER/NAME` and
            `/kaggle/input/competitions/NAME`; then the mount lists these.
    """

    marks: tuple[str, ...] = (COLAB,)
    has_kaggle: bool = False
    names_new_paths: bool = False

    @classmethod
    def decode(cls, values: Mapping[str, Any]) -> Dialect:
        """Return the dialect whose fields a JSON object has; those that are missing have their defaults."""
        return cls(**{**values, "marks": tuple(values.get("marks", (COLAB,)))})

    @property
    def works_in_kaggle(self) -> bool:
        """Whether the cells' working directory is `/kaggle/working`."""
        return self.marks[0] == KAGGLE

    def folder(self, job: Path) -> Path:
        """Return the folder of the job's folder `job` that is the cells' working directory."""
        return job / "kaggle" / "working" if self.works_in_kaggle else job / "content"

    def variables(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return the kernel's environment variables for the dialect; `inherited` are the parent's.

        Where the parent has `KAGGLE_KERNEL_RUN_TYPE` it runs on Kaggle, whose own variables stay.
        """
        named = {DIALECT_VARIABLE: ",".join(self.marks)}
        if KAGGLE not in self.marks or "KAGGLE_KERNEL_RUN_TYPE" in inherited:
            return named
        return {**named, **_MARKS, OWN_MARKS: "1"}


def dialect_of(notebook: Any, has_inputs: bool) -> Dialect:
    """Return the dialect of the parsed `notebook`; `has_inputs` says whether inputs are attached to the job."""
    cells = code_cells(notebook)
    text = "\n".join(cells)
    has_metadata = isinstance(notebook["metadata"].get("kaggle"), Mapping)
    speaks_kaggle = has_metadata or _KAGGLE.search(text) is not None
    speaks_colab = _COLAB.search(text) is not None
    new_paths = re.search(r"input/(?:datasets|competitions)/", text) is not None
    if not (speaks_kaggle or has_inputs):
        return Dialect()
    if speaks_colab and not (speaks_kaggle and (has_inputs or has_metadata)):
        primary, other = COLAB, KAGGLE
    else:
        primary, other = KAGGLE, COLAB
    marks = (primary, other) if other in _imported(cells) else (primary,)
    return Dialect(marks, has_kaggle=True, names_new_paths=new_paths)


def _imported(cells: list[str]) -> set[str]:
    """Return the dialects whose packages the cells import wherever they run."""
    required = [one.module for one in needs(cells).imports if one.required]
    found = {COLAB for module in required if module == "google.colab" or module.startswith("google.colab.")}
    return found | {KAGGLE for module in required if module.partition(".")[0] in _KAGGLE_MODULES}
