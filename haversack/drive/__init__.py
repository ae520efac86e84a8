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
UPLOADED = "uploaded.jsonl"
"""The file in a notebook job's folder with one line of JSON for each upload of a file that the job's mounts wrote:
`parent` (the id of its folder), `name` and `md5`. The journal adds the lines, and the job finds in them whether a
session changed anything on the drive."""
