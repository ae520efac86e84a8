"""Loops of the user's own over batches, that go on where they were."""
