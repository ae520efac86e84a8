"""The hub's web page: folders, uploads, pictures, trash and data sets in a browser.

    site       the routes: static files, sign-in, signed links to content, data sets
    sessions   who is signed in with a cookie
    pictures   which files are shown as images, and their thumbnails
    static/    the page itself: HTML, CSS and JavaScript modules, served unchanged

The page calls the hub's Drive v3 API as any client does; `site` has what that protocol has no call for. There is no
build step, and nothing is loaded from other hosts.
"""
