"""Sessions of browsers: a signed cookie, and the token that binds a form to it."""

import base64
import hashlib
import hmac
import secrets
import time

COOKIE = "jobqueue_session"
LASTS = 14 * 86_400
"""Seconds for which a login holds."""


class Sessions:
    """Signs and checks the cookies of one server.

    The key comes from the token's digest, so that a login outlives the process, holds in each
    process with the same token, and ends when the token changes. Without a token it is random.
    """

    def __init__(self, digest: bytes | None) -> None:
        self._key = hmac.digest(digest or secrets.token_bytes(32), b"jobqueue session", "sha256")

    def new(self) -> str:
        """Return the value of a new session's cookie. It holds no secret but its signature."""
        body = f"{int(time.time()) + LASTS}.{secrets.token_urlsafe(12)}"
        return f"{body}.{self._sign('session', body)}"

    def is_valid(self, cookie: str | None) -> bool:
        """Return whether a cookie is ours, and has not expired."""
        body, _, signature = (cookie or "").rpartition(".")
        expiry = body.partition(".")[0]
        return (
            _same(signature, self._sign("session", body))
            and expiry.isdigit()
            and int(expiry) > time.time()
        )

    def form_token(self, cookie: str) -> str:
        """Return the token that forms of this session carry."""
        return self._sign("form", cookie)

    def fits(self, token: str, cookie: str | None) -> bool:
        """Return whether a form of this session carries the token."""
        return cookie is not None and _same(token, self.form_token(cookie))

    def _sign(self, kind: str, text: str) -> str:
        signature = hmac.digest(self._key, f"{kind}:{text}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(signature).rstrip(b"=").decode()


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode(), right.encode())
