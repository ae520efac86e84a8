"""The hub: a plain folder served as a drive (Drive v3) and as Kaggle, on this machine's loopback interface.

    server     the application, who may come in, how long it lives
    signin     the token, the Kaggle key that follows from it, signed storage links
    drive      Drive v3's calls                      kaggle     Kaggle's calls
    tree       the folder with its records           shelf      published data sets and their versions
    query      the language of `q`                   fields     the language of `fields`
    uploads    resumable uploads of both             content    bytes in and out, with ranges
    media      Drive's calls that carry bytes        resource   a file's JSON, both ways
    multipart  bodies of several parts               records    the SQLite file
    refusal    an answer that is an error            names      any name as a name on disk

It imports nothing of haversack but `errors`: client and server are each held against Google's discovery document, so
that they cannot share one mistake.
"""
