"""Pages for people that a server renders: what `consume serve` and other services with pages share.

    sessions.py  a browser's session: a signed cookie instead of the token, and tokens in forms
    sign_in.py   the routes that start and end a session
    assets.py    style sheets, scripts and icons, and their route
    pages.py     templates, and the headers of every page

No page loads anything from another host or has a script of its own; `PAGE_HEADERS` makes browsers enforce it.
"""
