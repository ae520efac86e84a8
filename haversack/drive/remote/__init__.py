"""Drive v3 over HTTP: typed requests, batch requests, and resumable uploads."""
