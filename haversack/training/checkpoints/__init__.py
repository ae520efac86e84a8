"""Checkpoints of any training loop: taken in memory, committed on this disk, replicated to a store, owned by one."""
