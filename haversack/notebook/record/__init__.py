"""What is kept and shown of a job: its record, its notebook, its progress."""
