"""Kaggle's dialect of notebooks: `/kaggle/input`, `/kaggle/working`, and the packages of Kaggle's own image.

`dialect` tells from a notebook's cells whether it was written for Colab, for Kaggle or for both. The parent attaches
data sets (`inputs`, `proposal`) and provides `/kaggle` (`folder`). `/kaggle/input` is a read-only FUSE mount, served by
a process of its own for the whole job; nothing of an archive is extracted:

    haversack run                                   haversack's own Python
    job ── folder.KaggleFolder ── mount ──────────▶ serving ── operations ── tree, readers ──▶ datasets

In the kernel, `finder` makes `kaggle_secrets`, `kaggle_datasets` and `kaggle_web_client` importable, and `attached`
lets kagglehub find what is attached.
"""
