"""`google.colab.files`: the functions of `haversack.files`."""

from __future__ import annotations

from haversack.notebook.files import download, upload, upload_file, view

__all__ = ["download", "upload", "upload_file", "view"]
