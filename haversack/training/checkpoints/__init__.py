"""Checkpoints of any training loop: committed on this disk, replicated to a store, owned by one session."""
