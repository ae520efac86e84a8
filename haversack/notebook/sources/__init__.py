"""From what a user names to a local notebook file: paths, addresses of web pages, the drive, Kaggle.

`addresses` tells where the bytes of what a page shows are, without any request. `fetching` gets them and checks that
they are a notebook. `source` does both, and says whether the notebook is the user's own.
"""
