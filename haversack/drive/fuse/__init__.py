"""The drive as a FUSE mount: the command that mounts it, the process that serves it, and the kernel's side of it."""
