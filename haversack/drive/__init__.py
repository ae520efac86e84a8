"""Read, write, search and mount a drive over Google Drive's v3 API, served by Google or by a hub, haversack's server.

`remote` speaks the protocol. `index` caches names and metadata, `cache` caches bytes that were read, and `writeback`
holds written files until they are uploaded. `tree` joins these into one tree of paths; `filesystem` (fsspec) and `fuse`
(the mount) are built on that tree.
"""

from __future__ import annotations

ROOT, ALIAS = "My Drive", "MyDrive"
"""What Colab calls My Drive in a mount: the folder, and the symbolic link to it whose name has no space."""

MARK = "haversack"
"""The key in `appProperties` that marks files haversack created for itself; only these may be deleted permanently."""
