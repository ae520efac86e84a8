"""The sessions of a job: the kernel that executes its cells, and what starts and ends a session."""
