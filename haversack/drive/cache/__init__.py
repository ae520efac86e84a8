"""Bytes read from the drive, cached on the local disk."""
