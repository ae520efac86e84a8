"""What a notebook needs: its imports, the projects that provide them, and its own recipe."""
