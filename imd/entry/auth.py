"""The door that checks identities: the claims of a token, or in open mode the connect frame's own words.

A role comes from the claims `loginType` and `isCustomerService`. Visitors have tokens of another kind. The
only I/O is that the public key is read once.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import jwt
import msgspec

from imd.config.keys import UnusableKeyError, verification_key
from imd.config.settings import Auth
from imd.protocol.errors import (
    CLOSE_UNAUTHORIZED,
    FORBIDDEN,
    INVALID_MESSAGE,
    Closing,
    ConfigurationError,
    Refused,
)
from imd.protocol.frames import ConnectFrame
from imd.protocol.message import VISITOR_PREFIX, check_id, from_user_type, is_usable_id, is_visitor_id

MAX_TOKEN_CHARS = 8192

# The end of the year 9999. A later time is in milliseconds, and would never expire.
_LATEST_EXP = 253_402_300_799.0


@dataclass(frozen=True, slots=True)
class Identity:
    """The user of a connection, and the claims about its role."""

    user_id: str
    login_type: str | None
    """as given: imd.protocol.message.from_user_type tells whether there is such a type"""
    is_customer_service: bool
    exp: float | None
    """seconds since the epoch, without any leeway; None: for ever"""


class _Claims(msgspec.Struct, rename="camel"):
    sub: str
    exp: float
    nbf: float | None = None
    iss: str | None = None
    aud: str | list[str] | None = None
    login_type: str | None = None
    is_customer_service: bool | None = None


_decode_claims = msgspec.json.Decoder(_Claims).decode


class Authenticator:
    """Checks connect frames and tokens. `now` gives seconds since the epoch.

    Raises ConfigurationError when made in mode jwt with a key that cannot be used.
    """

    def __init__(self, auth: Auth, now: Callable[[], float]) -> None:
        self._now = now
        self._issuer = auth.issuer
        self._audience = auth.audience
        self._leeway = auth.leeway_seconds
        self._open = auth.mode == "open"
        if self._open:
            return
        try:
            self._algorithm, self._key = verification_key(auth.secret, auth.public_key)
        except UnusableKeyError as error:
            name = "secret" if auth.secret else "public_key"
            raise ConfigurationError(f"[auth] {name}: {error}") from None
        # The algorithm is the key's. A token does not choose how it is checked.
        self._jws = jwt.PyJWS(algorithms=[self._algorithm])

    def identify(self, frame: ConnectFrame, bearer: str | None) -> Identity:
        """The identity of a client that connects and is no visitor.

        `bearer` is the token of the Authorization header; the frame's own token goes before it. Raises
        Closing (4001) for a token that is missing, bad or expired, and Refused for a user id that is not
        allowed.
        """
        if self._open:
            if frame.user_id is None:
                raise Refused(INVALID_MESSAGE, "userId: expected")
            check_id("userId", frame.user_id)
            _check_no_visitor(frame.user_id)
            return Identity(frame.user_id, frame.login_type, bool(frame.is_customer_service), None)
        identity = self._check(frame.token or bearer)
        if frame.user_id is not None and frame.user_id != identity.user_id:
            raise Refused(FORBIDDEN, "userId: not the token's sub")
        return identity

    def renew(self, token: str, identity: Identity) -> Identity:
        """Return the identity with the newer token's `exp`. If it raises Refused, the old one stays valid."""
        if self._open:
            raise Refused(INVALID_MESSAGE, "no tokens in open mode")
        try:
            renewed = self._check(token)
        except Closing as closing:
            raise Refused(FORBIDDEN, closing.reason) from None
        if renewed.user_id != identity.user_id:
            raise Refused(FORBIDDEN, "the token has another sub")
        if _role(renewed) != _role(identity):
            raise Refused(FORBIDDEN, "the token has other roles: connect again")
        return renewed

    def _check(self, token: str | None) -> Identity:
        if not token:
            raise _unauthorized("token missing")
        claims = self._claims(token)
        now = self._now()
        if claims.exp + self._leeway <= now:
            raise _unauthorized("token expired")
        if claims.exp > _LATEST_EXP:
            raise _unauthorized("exp is not in seconds")
        if claims.nbf is not None and claims.nbf - self._leeway > now:
            raise _unauthorized("token not valid yet")
        if self._issuer and claims.iss != self._issuer:
            raise _unauthorized("token of another issuer")
        audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud or []
        if self._audience and self._audience not in audiences:
            raise _unauthorized("token for another audience")
        if not is_usable_id(claims.sub):
            raise _unauthorized("sub cannot be a userId")
        _check_no_visitor(claims.sub)
        return Identity(claims.sub, claims.login_type, bool(claims.is_customer_service), claims.exp)

    def _claims(self, token: str) -> _Claims:
        """Check the signature and return the claims. Times are not checked: PyJWT would use its own clock."""
        if len(token) > MAX_TOKEN_CHARS:
            raise _unauthorized(f"token longer than {MAX_TOKEN_CHARS} characters")
        try:
            checked = self._jws.decode_complete(token, key=self._key, algorithms=[self._algorithm])
        except jwt.InvalidSignatureError:
            raise _unauthorized("token's signature is wrong") from None
        except jwt.InvalidAlgorithmError:
            raise _unauthorized(f"token is not signed by {self._algorithm}") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise _unauthorized("token cannot be read") from None
        try:
            return _decode_claims(checked["payload"])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _unauthorized("a claim is missing or of the wrong type") from None


def _unauthorized(why: str) -> Closing:
    return Closing(CLOSE_UNAUTHORIZED, f"unauthorized: {why}")


def _check_no_visitor(user_id: str) -> None:
    if is_visitor_id(user_id):
        raise Refused(FORBIDDEN, f"ids that begin with {VISITOR_PREFIX} are visitors'")


def _role(identity: Identity) -> object:
    return from_user_type(identity.login_type, False, identity.is_customer_service)


def bearer_token(authorization: str | None) -> str | None:
    """The bearer token in the value of an Authorization header; None if it has none."""
    match = re.fullmatch(r"bearer +(\S+)\s*", authorization or "", re.IGNORECASE)
    return match[1] if match else None


# ---- visitors


_VISITOR_TOKEN = re.compile(rf"({re.escape(VISITOR_PREFIX)}[0-9a-f]{{20}})\.([A-Za-z0-9_-]{{43}})")


def new_visitor(choose: Callable[[Callable[[], str]], str] = lambda draw: draw()) -> tuple[str, str, str]:
    """A visitor's id, its token, and the hash that is all a node keeps of the token.

    `choose` gets a function that draws an id, and returns an id that it drew.
    """
    visitor = choose(_draw_visitor)
    secret = secrets.token_urlsafe(32)
    return visitor, f"{visitor}.{secret}", _hash(secret)


def _draw_visitor() -> str:
    return f"{VISITOR_PREFIX}{secrets.token_hex(10)}"


def read_visitor_token(token: str) -> tuple[str, str]:
    """The visitor that a token names, and the hash to compare. Raises Closing (4001) if it is malformed."""
    match = _VISITOR_TOKEN.fullmatch(token)
    if match is None:
        raise _unauthorized("bad visitorToken")
    return match[1], _hash(match[2])


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
