"""Data sets: listed without a download, read in place without extraction, streamed as image batches, published."""
