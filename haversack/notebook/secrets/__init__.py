"""Secrets: where notebooks read them, how a job learns of them, and how outputs are masked."""
