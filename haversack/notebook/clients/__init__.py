"""The clients of drive, hub and Kaggle for a kernel whose environment holds only what its notebook needs.

Such a kernel must not import them: they need aiohttp, msgspec, mfusepy and others, in versions that are ours and not
the notebook's. They run in a process of haversack's own Python, which the kernel starts in its own mount namespace, so
that a mount appears where the cells see it:

    kernel                                          haversack's own Python
    google.colab.drive, auth ── client.call ──────▶ serving ──▶ actions ──▶ drive.fuse.mount, credentials
    training ── fsspec ── filesystem ── Client ───▶ serving ──▶ actions ──▶ DriveFileSystem

`interpreter`, `client`, `filesystem` and `failures` run in the kernel and need the standard library and fsspec only.
`serving` and `actions` run in the other process. `HAVERSACK_CLIENTS=process` in the kernel's environment says that the
clients are apart; without it, `client.call` calls the same actions in the kernel itself.
"""
