"""Data sets, used where they lie: looked into without fetching, read without extracting, published from a folder."""
