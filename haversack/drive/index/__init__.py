"""An SQLite index of the drive's names, kept current by the changes feed, and the listing of folders into it."""
