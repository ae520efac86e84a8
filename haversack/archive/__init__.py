"""Zip archives, in and out, through anything that has bytes at an offset, here or still elsewhere."""
