"""Files that are here in part: sparse on the local disk, filled by range requests as they are needed."""
