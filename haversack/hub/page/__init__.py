"""The hub's page for people: folders, uploads, pictures, trash and data sets in a browser.

    site       the routes: the page's own files, sign-in, links to bytes, data sets
    sessions   who is signed in with a cookie
    pictures   which files are shown as images, and their thumbnails
    static/    the page itself: HTML, CSS and JavaScript modules, served as they are

The page speaks Drive v3 to its own hub like any other client; what that protocol has no call for is answered here.
There is no build step and nothing is fetched from elsewhere.
"""
