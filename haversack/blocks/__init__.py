"""Remote files of which this machine holds some blocks: sparse local files, filled by HTTP range requests."""
