"""Secrets of a job: where notebooks read them, how the parent learns of them, and how they are masked."""
