"""The drive as a FUSE mount: the mount command, the process that serves a mount, and the kernel's caches of it."""
