"""Written files: a journal on the local disk that survives a crash, and the uploads that bring them to the drive."""
