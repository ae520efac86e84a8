"""`kaggle_datasets`: the addresses of data sets in Google Cloud Storage, which exist on Kaggle only.

Runs in the kernel. TPU notebooks ask for an address because a TPU reads no local disk. Here devices read the files.
"""

from __future__ import annotations

from haversack.notebook.kaggle.web_client import BackendError

__all__ = ["KaggleDatasets"]


class KaggleDatasets:
    """Kaggle's class of this name."""

    def get_gcs_path(self, dataset_dir: str | None = None) -> str:
        """Raise `BackendError` with the local path of the data set `dataset_dir`."""
        path = f"/kaggle/input/{dataset_dir}" if dataset_dir else "/kaggle/input"
        raise BackendError(f"This machine copies no data to Google Cloud Storage. Read it from {path} instead.")
