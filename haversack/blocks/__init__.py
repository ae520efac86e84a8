"""Files of which this machine holds only some blocks: sparse on the local disk, filled by range requests."""
