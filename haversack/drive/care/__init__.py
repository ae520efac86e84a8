"""Maintenance of a drive: find what makes it slow or full, split crowded folders, and manage its trash."""
