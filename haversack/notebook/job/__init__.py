"""A job, from its first line to its report: `haversack run` and what is kept of finished jobs."""
