"""The hub: a server on the loopback interface that serves a plain folder through Drive v3 and through Kaggle's API.

    server     the application, its access checks and its lifetime
    signin     the token, the Kaggle key derived from it, signed links
    authority  the hub's own certificate authority    proxy      routes Google's host names to the hub
    drive      Drive v3's JSON calls                  kaggle     Kaggle's calls
    tree       reads and changes of the folder        datasets   published data sets and their versions
    index      the table of files                     records    the SQLite database
    disk       reconciles the table with the disk     rescan     the same for the whole tree, in the background
    query      the language of `q`                    fields     the language of `fields`
    uploads    resumable uploads of both APIs         content    file content in and out, with ranges
    media      Drive's calls that carry bytes         resource   a file's JSON, both ways
    multipart  multipart bodies                       names      any name as a name on disk
    documents  Google's documents, and shortcuts      refusal    an error response
    faults     fault injection                        wire       how the bytes of a call are transferred
    calls      the call log                           page/      the web page

It imports only `errors`, `disk` and `settings` from the rest of haversack, and no protocol code of the clients: client
and server are each tested against Google's discovery document and the official clients, so that they cannot share a
mistake.

A term of all modules: a signed link is a URL that opens one resource without other credentials until it expires.
"""
