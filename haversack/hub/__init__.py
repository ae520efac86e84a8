"""The hub: a plain folder served as a drive (Drive v3) and as Kaggle, on this machine's loopback interface.

    server     the application, who may come in, how long it lives
    signin     the token, the Kaggle key that follows from it, signed storage links
    authority  certificates of its own               proxy      leads Google's hosts to the hub
    drive      Drive v3's calls                      kaggle     Kaggle's calls
    tree       what calls find and do in the folder  shelf      published data sets and their versions
    index      the records of files                  records    the SQLite file
    disk       comparing records with the disk       watch      the same for the whole tree, beside the calls
    query      the language of `q`                   fields     the language of `fields`
    uploads    resumable uploads of both             content    bytes in and out, with ranges
    media      Drive's calls that carry bytes        resource   a file's JSON, both ways
    multipart  bodies of several parts               names      any name as a name on disk
    documents  Google's documents, and shortcuts     refusal    an answer that is an error
    faults     bad networks and limits, rehearsed    wire       how a call's bytes travel
    calls      the log of calls                      page/      the page for people

It imports nothing of haversack but `errors`: client and server are each held against Google's discovery document, so
that they cannot share one mistake.
"""
