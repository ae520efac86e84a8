"""The drive: looked up, read, written and mounted over Drive v3, whether Google's or a hub's.

Bytes go one way: `api` speaks the protocol, `content` keeps what was read, `journal` what is still to be uploaded,
`tree` joins them into one tree of paths, and `filesystem` (fsspec) and `mount` (FUSE) both stand on that tree.
"""

ROOT, ALIAS = "My Drive", "MyDrive"
"""What Colab calls My Drive in a mount: the folder, and the link to it without a space."""

MARK = "haversack"
"""The key in `appProperties` of files that haversack made for itself, and may delete for good."""
