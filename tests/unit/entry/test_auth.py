from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, strategies
from hypothesis import settings as hypothesis_settings
from twisted.trial import unittest

from imd.config.settings import Auth
from imd.entry.auth import Authenticator, Identity, bearer_token, new_visitor, read_visitor_token
from imd.protocol import errors
from imd.protocol.errors import Closing, ConfigurationError, Refused
from imd.protocol.frames import ConnectFrame

SECRET = "0123456789abcdef0123456789abcdef"
NOW = 1_764_000_000.0
CLAIMS = {"sub": "alice", "exp": NOW + 60, "loginType": "USER_TYPE"}


def frame(**fields: Any) -> ConnectFrame:
    return ConnectFrame(is_connect=True, **fields)


def token(
    claims: dict[str, Any] | None = None, key: Any = SECRET, algorithm: str = "HS256", **more: Any
) -> str:
    claims = {**CLAIMS, **more} if claims is None else claims
    return jwt.PyJWS().encode(json.dumps(claims).encode(), key, algorithm)


def by_hand(header: object, claims: object, signature: bytes = b"") -> str:
    """A token of any parts, as no library would make it."""
    parts = json.dumps(header).encode(), json.dumps(claims).encode(), signature
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def pem(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class AuthCase(unittest.TestCase):
    def authenticator(self, **auth: Any) -> Authenticator:
        auth.setdefault("mode", "jwt")
        if auth["mode"] == "jwt" and "public_key" not in auth:
            auth.setdefault("secret", SECRET)
        return Authenticator(Auth(**auth), lambda: NOW)

    def refused(self, code: str, function: Any, *arguments: Any) -> str:
        refusal = self.assertRaises(Refused, function, *arguments)
        self.assertEqual(refusal.code, code)
        return refusal.reason

    def unauthorized(self, text: str | None, **auth: Any) -> str:
        """The reason for which a token is refused. Checks that it shows nothing of the token."""
        closing = self.assertRaises(Closing, self.authenticator(**auth).identify, frame(token=text), None)
        self.assertEqual(closing.code, errors.CLOSE_UNAUTHORIZED)
        self.assertTrue(closing.reason.startswith("unauthorized: "))
        self.assertLess(len(closing.reason.encode()), 100)
        return closing.reason


class OpenModeTests(AuthCase):
    def test_the_frame_is_believed(self) -> None:
        """In open mode the frame's userId and roles are believed; tokens are ignored."""
        identify = self.authenticator(mode="open").identify
        found = identify(frame(user_id="alice", login_type="user", is_customer_service=True, token="x"), "y")
        self.assertEqual(found, Identity("alice", "user", True, None))
        self.assertEqual(identify(frame(user_id="bob"), None), Identity("bob", None, False, None))

    def test_user_id_is_needed(self) -> None:
        """A userId that is missing, empty or not allowed is refused."""
        identify = self.authenticator(mode="open").identify
        for user_id in (None, "", "a" * 129, "a\nb", "\ud800"):
            self.refused(errors.INVALID_MESSAGE, identify, frame(user_id=user_id), None)

    def test_visitors_names_are_theirs(self) -> None:
        """No user can have a name that begins with visitor-."""
        identify = self.authenticator(mode="open").identify
        self.refused(errors.FORBIDDEN, identify, frame(user_id="visitor-1"), None)

    def test_nothing_to_renew(self) -> None:
        """Open mode has no tokens to renew."""
        renew = self.authenticator(mode="open").renew
        reason = self.refused(errors.INVALID_MESSAGE, renew, token(), Identity("alice", None, False, None))
        self.assertEqual(reason, "no tokens in open mode")


class KeyTests(AuthCase):
    def public_key_file(self, key: Any) -> str:
        path = Path(self.mktemp())
        path.write_bytes(pem(key))
        return str(path)

    def test_hs256(self) -> None:
        """A token signed with the shared secret is accepted."""
        found = self.authenticator().identify(frame(token=token()), None)
        self.assertEqual(found, Identity("alice", "USER_TYPE", False, NOW + 60))

    def test_public_keys(self) -> None:
        """RS256 for an RSA key, EdDSA for Ed25519 and Ed448; by path or as PEM text."""
        for key, algorithm in (
            (rsa.generate_private_key(65537, 2048), "RS256"),
            (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
            (ed448.Ed448PrivateKey.generate(), "EdDSA"),
        ):
            for public_key in (self.public_key_file(key), pem(key).decode()):
                identify = self.authenticator(public_key=public_key).identify
                found = identify(frame(token=token(key=key, algorithm=algorithm)), None)
                self.assertEqual(found.user_id, "alice")

    def test_other_algorithms_of_the_same_key(self) -> None:
        """Only the one algorithm is accepted, not others of its family."""
        key = rsa.generate_private_key(65537, 2048)
        public_key = self.public_key_file(key)
        for algorithm in ("RS384", "PS256"):
            reason = self.unauthorized(token(key=key, algorithm=algorithm), public_key=public_key)
            self.assertEqual(reason, "unauthorized: token is not signed by RS256")
        self.unauthorized(token(key=SECRET * 2, algorithm="HS512"), secret=SECRET * 2)

    def test_alg_none(self) -> None:
        """`alg` none is refused in several spellings, with and without a signature."""
        for public_key in ("", self.public_key_file(ed25519.Ed25519PrivateKey.generate())):
            auth = {"public_key": public_key} if public_key else {}
            for alg in ("none", "None", "NONE", "", None, ["none"], {}, 0):
                for signature in (b"", b"x"):
                    self.unauthorized(by_hand({"alg": alg, "typ": "JWT"}, CLAIMS, signature), **auth)
            self.unauthorized(by_hand({"typ": "JWT"}, CLAIMS), **auth)

    def test_public_key_as_secret(self) -> None:
        """Algorithm confusion is refused: HS256 over the bytes of the public key."""
        for key in (rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()):
            unsigned = by_hand({"alg": "HS256", "typ": "JWT"}, CLAIMS).rpartition(".")[0]
            for secret in (pem(key), pem(key).strip()):
                seal = hmac.digest(secret, unsigned.encode(), "sha256")
                forged = f"{unsigned}.{base64.urlsafe_b64encode(seal).rstrip(b'=').decode()}"
                reason = self.unauthorized(forged, public_key=self.public_key_file(key))
                self.assertIn("is not signed by", reason)

    def test_forged(self) -> None:
        """Another secret or key, a changed payload, and a cut signature are refused."""
        self.assertIn("signature", self.unauthorized(token(key="x" * 32)))
        good = token()
        head, body, seal = good.split(".")
        other = token(sub="mallory").split(".")[1]
        for bad in (
            f"{head}.{other}.{seal}",
            f"{head}.{body}.",
            f"{head}.{body}.{seal[:-4]}",
            f"{head}.{body}",
        ):
            self.unauthorized(bad)
        key = ed25519.Ed25519PrivateKey.generate()
        forged = token(key=ed25519.Ed25519PrivateKey.generate(), algorithm="EdDSA")
        self.unauthorized(forged, public_key=self.public_key_file(key))

    def test_keys_that_come_with_the_token(self) -> None:
        """A key in the token's head, or named there, is ignored."""
        theirs = "attacker's own secret of 32 bytes"
        jwk = {"kty": "oct", "k": base64.urlsafe_b64encode(theirs.encode()).decode()}
        payload = json.dumps(CLAIMS).encode()
        for head in ({"jwk": jwk}, {"jku": "https://example.com/keys"}, {"kid": "/dev/null"}, {"x5u": "x"}):
            self.assertIn("signature", self.unauthorized(jwt.PyJWS().encode(payload, theirs, headers=head)))
            good = jwt.PyJWS().encode(payload, SECRET, headers=head)
            self.assertEqual(self.authenticator().identify(frame(token=good), None).user_id, "alice")

    def test_unusable_keys(self) -> None:
        """An authenticator cannot be made with an unusable key."""
        for auth in ({"secret": "short"}, {"public_key": "nowhere.pem"}, {"public_key": ""}):
            self.assertRaises(ConfigurationError, self.authenticator, **auth)


class ClaimTests(AuthCase):
    def test_where_the_token_comes_from(self) -> None:
        """The frame's token goes before the header's. One of them is required."""
        identify = self.authenticator().identify
        self.assertEqual(identify(frame(), token()).user_id, "alice")
        self.assertEqual(identify(frame(token=token(sub="bob")), token()).user_id, "bob")
        self.assertRaises(Closing, identify, frame(token="bad"), token())
        self.assertEqual(self.unauthorized(None), "unauthorized: token missing")

    def test_roles_come_from_the_claims(self) -> None:
        """Roles in the frame are ignored."""
        identify = self.authenticator().identify
        claimed = frame(token=token(), login_type="CUSTOMER_TYPE", is_customer_service=True)
        self.assertEqual(identify(claimed, None), Identity("alice", "USER_TYPE", False, NOW + 60))
        agent = identify(frame(token=token(isCustomerService=True)), None)
        self.assertIs(agent.is_customer_service, True)
        bare = identify(frame(token=token({"sub": "a", "exp": NOW + 1}), login_type="USER_TYPE"), None)
        self.assertEqual(bare, Identity("a", None, False, NOW + 1))

    def test_user_id_of_the_frame(self) -> None:
        """The frame's userId may be left out; if given it must be the sub."""
        identify = self.authenticator().identify
        self.assertEqual(identify(frame(token=token(), user_id="alice"), None).user_id, "alice")
        for user_id in ("bob", "Alice", ""):
            self.refused(errors.FORBIDDEN, identify, frame(token=token(), user_id=user_id), None)

    def test_times(self) -> None:
        """exp and nbf are checked exactly, with the leeway; iat is ignored."""
        for leeway, auth in ((30, {}), (0, {"leeway_seconds": 0.0}), (2.5, {"leeway_seconds": 2.5})):
            identify = self.authenticator(**auth).identify
            found = identify(frame(token=token(exp=NOW + 0.5 - leeway, nbf=NOW + leeway)), None)
            self.assertEqual(found.exp, NOW + 0.5 - leeway, "without the leeway")
            for exp in (NOW - leeway, NOW - leeway - 1, 0, -1):
                self.assertEqual(self.unauthorized(token(exp=exp), **auth), "unauthorized: token expired")
            early = self.unauthorized(token(nbf=NOW + leeway + 0.5), **auth)
            self.assertEqual(early, "unauthorized: token not valid yet")
            self.assertIn("seconds", self.unauthorized(token(exp=(NOW + 60) * 1000), **auth))
            self.assertEqual(identify(frame(token=token(iat=NOW + 500)), None).user_id, "alice")

    def test_missing_claims(self) -> None:
        """sub and exp are required."""
        for missing in ("sub", "exp"):
            claims = {name: value for name, value in CLAIMS.items() if name != missing}
            self.assertIn("a claim is missing", self.unauthorized(token(claims)))

    def test_wrong_types(self) -> None:
        """A claim of the wrong type is refused."""
        for claims in (
            {"sub": 7},
            {"sub": None},
            {"sub": ["alice"]},
            {"exp": str(int(NOW + 60))},
            {"exp": True},
            {"exp": None},
            {"nbf": "now"},
            {"iss": 3},
            {"aud": {"a": 1}},
            {"aud": [1]},
            {"loginType": 1},
            {"isCustomerService": "false"},
            {"isCustomerService": 1},
        ):
            self.unauthorized(token(**claims))
        for exp in ("1e400", "NaN", "Infinity", "-Infinity", "9" * 400):
            payload = f'{{"sub":"alice","exp":{exp}}}'.encode()
            self.unauthorized(jwt.PyJWS().encode(payload, SECRET, "HS256"))
        for payload in (b"[]", b"", b"null", b"{", b"\xff", b"[" * 5000, b'{"sub":"\\ud800","exp":2e9}'):
            self.unauthorized(jwt.PyJWS().encode(payload, SECRET, "HS256"))

    def test_sub_must_be_a_usable_id(self) -> None:
        """A sub must be an allowed user id, and not a visitor's."""
        for sub in ("", "a" * 129, "a\u0000b"):
            self.assertEqual(self.unauthorized(token(sub=sub)), "unauthorized: sub cannot be a userId")
        self.refused(
            errors.FORBIDDEN, self.authenticator().identify, frame(token=token(sub="visitor-1")), None
        )

    def test_issuer_and_audience(self) -> None:
        """Issuer and audience are checked if configured; else any are accepted."""
        self.authenticator().identify(frame(token=token(iss="x", aud=["y"])), None)
        for key, claim in (("issuer", "iss"), ("audience", "aud")):
            identify = self.authenticator(**{key: "imd"}).identify
            identify(frame(token=token(**{claim: "imd"})), None)
            for bad in ({}, {claim: "other"}, {claim: "imd "}):
                self.assertIn(key, self.unauthorized(token(**bad), **{key: "imd"}))
        identify = self.authenticator(audience="imd").identify
        identify(frame(token=token(aud=["web", "imd"])), None)
        self.unauthorized(token(aud=[]), audience="imd")

    def test_huge_tokens(self) -> None:
        """A token that is too long is refused unread, even a valid one."""
        self.assertIn("longer", self.unauthorized(token(more="x" * 10_000)))
        self.assertIn("longer", self.unauthorized("x" * 1_000_000))

    def test_deep_head(self) -> None:
        """A head with endless nesting is refused."""
        head = base64.urlsafe_b64encode(b'{"alg":' + b"[" * 5000).rstrip(b"=").decode()
        self.unauthorized(f"{head}.e30.e30")

    def test_not_even_text(self) -> None:
        """Texts that are no tokens are refused."""
        for text in ("x", "..", "a.b.c", "é.é.é", "\ud800.a.b", "a b c", "{}", "\0"):
            self.assertEqual(self.unauthorized(text), "unauthorized: token cannot be read")

    @hypothesis_settings(max_examples=200, deadline=None, database=None)
    @given(
        strategies.recursive(
            strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(max_size=5),
            lambda inner: (
                strategies.lists(inner, max_size=3)
                | strategies.dictionaries(
                    strategies.sampled_from(["alg", "typ", "kid", "crit", "b64", "x"]), inner, max_size=4
                )
            ),
            max_leaves=8,
        )
    )
    def test_any_head(self, head: object) -> None:
        """Any bad head raises Closing (4001), and nothing else."""
        self.unauthorized(by_hand(head, CLAIMS, b"x" * 32))

    @hypothesis_settings(max_examples=200, deadline=None, database=None)
    @given(strategies.binary(max_size=100))
    def test_any_payload(self, payload: bytes) -> None:
        """A signed payload that makes no sense is refused."""
        self.unauthorized(jwt.PyJWS().encode(payload, SECRET, "HS256"))


class RenewalTests(AuthCase):
    def setUp(self) -> None:
        self.auth = self.authenticator()
        self.alice = self.auth.identify(frame(token=token()), None)

    def test_later_exp(self) -> None:
        """The same identity with a later exp. An alias of the role is the same role."""
        renewed = self.auth.renew(token(exp=NOW + 600, loginType="user"), self.alice)
        self.assertEqual((renewed.user_id, renewed.exp), ("alice", NOW + 600))

    def test_somebody_else(self) -> None:
        """Another sub or another role is `forbidden`."""
        for claims in ({"sub": "bob"}, {"loginType": "CUSTOMER_TYPE"}, {"isCustomerService": True}):
            self.refused(errors.FORBIDDEN, self.auth.renew, token(**claims), self.alice)

    def test_bad_tokens(self) -> None:
        """A token that would not be admitted raises Refused: the old one stays valid."""
        for bad in ("", "x", token(exp=NOW - 31), token(key="y" * 32), token(sub="visitor-1")):
            self.refused(errors.FORBIDDEN, self.auth.renew, bad, self.alice)


class BearerTests(unittest.TestCase):
    def test_headers(self) -> None:
        """A bearer header has a token; other headers have none."""
        for header, expected in (
            ("Bearer a.b.c", "a.b.c"),
            ("bearer  a.b.c ", "a.b.c"),
            ("Basic abc", None),
            ("Bearer", None),
            ("Bearer a b", None),
            ("", None),
            (None, None),
        ):
            self.assertEqual(bearer_token(header), expected)


class VisitorTests(unittest.TestCase):
    def test_new(self) -> None:
        """A new visitor's name and token have their shapes; the token gives back the name and the hash."""
        visitor, text, token_hash = new_visitor()
        self.assertRegex(visitor, r"\Avisitor-[0-9a-f]{20}\Z")
        self.assertRegex(text, rf"\A{visitor}\.[A-Za-z0-9_-]{{43}}\Z")
        self.assertEqual(token_hash, hashlib.sha256(text.partition(".")[2].encode()).hexdigest())
        self.assertEqual(read_visitor_token(text), (visitor, token_hash))

    def test_no_two_are_alike(self) -> None:
        """Names and tokens are random."""
        made = [new_visitor() for _ in range(100)]
        self.assertEqual([len(set(parts)) for parts in zip(*made, strict=True)], [100, 100, 100])

    def test_malformed(self) -> None:
        """A malformed visitor's token raises Closing (4001)."""
        visitor, text, _ = new_visitor()
        for bad in ("", visitor, f"{visitor}.", text[:-1], f"{text}x", f"{text}\n", text.upper(), f" {text}"):
            closing = self.assertRaises(Closing, read_visitor_token, bad)
            self.assertEqual((closing.code, closing.reason), (4001, "unauthorized: bad visitorToken"))
