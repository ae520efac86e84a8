"""The bytes of files that were read, cached on local disk."""
