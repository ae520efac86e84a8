"""What is stored and shown of a job: its record, its notebook, its progress."""
