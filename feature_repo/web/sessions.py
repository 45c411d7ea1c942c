"""A browser's session: a signed cookie instead of the token, and tokens in forms against posts from other sites.

A browser signs in with the server's token once and gets the cookie `EXPIRES.NONCE.SIGNATURE`. The signature is an HMAC
(RFC 2104) under a key that is derived from the token. So every process with this token accepts the session, also after
a restart, and none does after the token has been changed. The server stores nothing.

A form has an HMAC of the session as a hidden field. Another site can make a browser post a form, but it can read
neither the cookie nor the pages, so it cannot know that field. A server without a token needs no sign-in, but its forms
have such fields too.
"""

import hmac
import secrets
from datetime import datetime

from feature_repo.auth import ServerAccess

COOKIE = "vitrine_session"
FORM_TOKEN = "form_token"
"""Name of the hidden field of every form."""
SESSION_SECONDS = 7 * 24 * 3600
"""Lifetime of a session."""


class SessionSigner:
    """Makes and checks the sessions of one server.

    Args:
        access: the token and the certificate. With a certificate, browsers send the cookie over TLS only.
    """

    def __init__(self, access: ServerAccess) -> None:
        self._key = hmac.digest((access.token or "").encode(), b"vitrine browser session", "sha256")
        self._attributes = f"Path=/; Max-Age={SESSION_SECONDS}; HttpOnly; SameSite=Strict"
        self._attributes += "; Secure" if access.certificate else ""

    def create(self, now: datetime) -> str:
        """Return a new session that starts at a time with a UTC offset."""
        content = f"{int(now.timestamp()) + SESSION_SECONDS}.{secrets.token_urlsafe(16)}"
        return f"{content}.{self._sign(content)}"

    def is_valid(self, session: str | None, now: datetime) -> bool:
        """Return whether a session was made under this key and has not expired; False for None."""
        content, _, signature = (session or "").rpartition(".")
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), self._sign(content).encode()):
            return False
        return now.timestamp() < int(content.partition(".")[0])

    def make_form_token(self, session: str) -> str:
        """Return the hidden field of the forms of a session."""
        return self._sign(f"form {session}")

    def is_form_token(self, form_token: str, session: str) -> bool:
        """Return whether a field is `make_form_token(session)`, in a time that does not depend on it."""
        expected = self.make_form_token(session)
        return hmac.compare_digest(form_token.encode("utf-8", "replace"), expected.encode())

    def format_cookie(self, session: str) -> str:
        """Return the value of `Set-Cookie` that starts a session in a browser."""
        return f"{COOKIE}={session}; {self._attributes}"

    def format_end(self) -> str:
        """Return the value of `Set-Cookie` that ends the session in a browser."""
        return f"{COOKIE}=; {self._attributes}".replace(f"Max-Age={SESSION_SECONDS}", "Max-Age=0")

    def _sign(self, text: str) -> str:
        return hmac.digest(self._key, text.encode("utf-8", "replace"), "sha256").hex()[:40]


def find_session(cookies: str | None) -> str | None:
    """Return the session in a `Cookie` header; None if there is none."""
    for part in (cookies or "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return None


def is_from_other_site(fetch_site: str | None) -> bool:
    """Return whether a browser says, by `Sec-Fetch-Site`, that another site made it send a request.

    Browsers that do not send the header are covered by SameSite and by the forms' tokens.
    """
    return (fetch_site or "none").lower() not in ("same-origin", "none")


def to_local_path(path: str | None) -> str:
    """Return a path of this server to which a browser may be sent; `/` for anything that may lead elsewhere."""
    is_local = path is not None and path.startswith("/") and not path.startswith("//")
    return path if path and is_local and path.isprintable() and "\\" not in path else "/"
