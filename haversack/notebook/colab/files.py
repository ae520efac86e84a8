"""`google.colab.files`: the same as `haversack.files`."""

from __future__ import annotations

from haversack.notebook.files import download, upload, upload_file, view

__all__ = ["download", "upload", "upload_file", "view"]
