# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients of the authorization server, with keys that are made anew in every run."""

from __future__ import annotations

import base64
from typing import NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa


class Client(NamedTuple):
    """A registered client. key: PEM of its private key, where it signs. subject: the mailbox of its own tokens."""

    client_id: str
    client_secret: str = ""
    key: str = ""
    subject: str = ""


def private_key() -> str:
    """A new RSA key, as PEM."""
    key = rsa.generate_private_key(65537, 2048)
    kind, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, kind, plain).decode()


def public_jwk(pem: str) -> dict[str, str]:
    """The public half of a key: RFC 7517 and RFC 7518, 6.3.1."""
    key = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    numbers = key.public_key().public_numbers()
    return {"kty": "RSA", "alg": "RS256", "use": "sig", "n": _number(numbers.n), "e": _number(numbers.e)}


def _number(value: int) -> str:
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
