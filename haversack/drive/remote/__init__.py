"""Drive v3 over HTTP: its calls, batches of calls, and resumable uploads."""
