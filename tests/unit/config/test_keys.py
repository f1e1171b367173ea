from __future__ import annotations

from twisted.trial import unittest

from imd.config.keys import UnusableKeyError, verification_key


class SecretTests(unittest.TestCase):
    def test_a_secret_means_hs256(self) -> None:
        """A secret's key is its UTF-8 bytes, and its algorithm HS256."""
        self.assertEqual(verification_key("é" * 16, ""), ("HS256", ("é" * 16).encode()))

    def test_keys_of_other_kinds(self) -> None:
        """Public material (a public key, a JWK, an SSH key) is refused as a secret."""
        for text in (
            "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----",
            '{"kty": "oct", "k": "AAAAAAAAAAAAAAAAAAAAAAAAAAA"}',
            "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ",
        ):
            self.assertRaises(UnusableKeyError, verification_key, text, "")

    def test_complaints_hold_nothing_of_the_key(self) -> None:
        """An error shows nothing of the key, so it may be logged."""
        for secret, public_key in (("hunter2", ""), ("", "-----BEGIN PUBLIC KEY-----hunter2")):
            error = self.assertRaises(UnusableKeyError, verification_key, secret, public_key)
            self.assertNotIn("hunter2", str(error))
