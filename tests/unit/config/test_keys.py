from __future__ import annotations

from twisted.trial import unittest

from imd.config.keys import UnusableKeyError, verification_key


class SecretTests(unittest.TestCase):
    def test_a_secret_means_hs256(self) -> None:
        """The bytes of the secret, in UTF-8, and nothing that a token could choose."""
        self.assertEqual(verification_key("é" * 16, ""), ("HS256", ("é" * 16).encode()))

    def test_keys_of_other_kinds(self) -> None:
        """What everybody may know (a public key, a JWK, an SSH key) is no secret."""
        for text in (
            "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----",
            '{"kty": "oct", "k": "AAAAAAAAAAAAAAAAAAAAAAAAAAA"}',
            "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ",
        ):
            self.assertRaises(UnusableKeyError, verification_key, text, "")

    def test_complaints_hold_nothing_of_the_key(self) -> None:
        """What is said about a key may be logged."""
        for secret, public_key in (("hunter2", ""), ("", "-----BEGIN PUBLIC KEY-----hunter2")):
            error = self.assertRaises(UnusableKeyError, verification_key, secret, public_key)
            self.assertNotIn("hunter2", str(error))
