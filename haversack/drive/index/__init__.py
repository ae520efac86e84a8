"""What is known of the drive's names: an SQLite index kept current by the changes feed, and how folders are listed."""
