"""The sessions of a job: the kernel that executes its cells, and what ends one and begins the next."""
