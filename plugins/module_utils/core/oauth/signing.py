# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Signed assertions (RFC 7523) by PyJWT and cryptography, which only the clients that sign need."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import HostError
from ..redaction import Secret

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_PRIVATE = re.compile(r"-----BEGIN ([A-Z]+ )?PRIVATE KEY-----")
_WAY_OUT = "a private key as PEM, as JWK, or the JSON file that Google made for the service account"
LIBRARIES = "PyJWT and cryptography (the packages python3-jwt and python3-cryptography)"


class LibraryMissing(Exception):
    """A library that signing needs is not installed; the text names it."""


class SigningKey(NamedTuple):
    """A private key, and what its file says beside it. ``key`` is what PyJWT signs with."""

    key: Any
    algorithms: tuple[str, ...]  # that it can sign by, the usual one first
    kid: str = ""
    issuer: str = ""  # Google's client_email
    certificate: bytes = b""  # DER

    def __repr__(self) -> str:
        return f"SigningKey({self.algorithms})"


def read_key(path: str, content: bytes) -> SigningKey:
    """The key that the file holds. Raises HostError with the path (never with what is in it), LibraryMissing."""
    text = content.decode("utf-8", "replace").strip()
    try:
        if text.startswith("{"):
            return _from_json(path, text)
        if not _PRIVATE.search(text):
            raise HostError(path, _what_else(text), _WAY_OUT)
        found = _CERTIFICATE.search(text)
        certificate = base64.b64decode("".join(found.group(1).split())) if found else b""
        return _of_pem(path, text, certificate=certificate)
    except (ValueError, TypeError, KeyError):
        raise HostError(path, "is not a private key that can be read", _WAY_OUT) from None


def _from_json(path: str, text: str) -> SigningKey:
    record = json.loads(text)
    if "private_key" in record:
        found = _of_pem(path, str(record["private_key"]))
        return found._replace(kid=str(record.get("private_key_id", "")), issuer=str(record.get("client_email", "")))
    if "kty" not in record or ("d" not in record and record["kty"] != "oct"):
        raise HostError(path, "is JSON, but not a private key", _WAY_OUT)
    if record["kty"] == "oct":
        raise HostError(path, "is a shared secret, not a private key", "give it by client_secret")
    jwt = _jwt()
    if not hasattr(jwt, "PyJWK"):
        raise HostError(path, "is a JWK, which this host's PyJWT 1 cannot read", "give the key as PEM")
    try:
        key = jwt.PyJWK.from_dict(record).key
    except jwt.PyJWTError:
        raise HostError(path, "is not a key that can be read", _WAY_OUT) from None
    return SigningKey(key, _algorithms(path, key), kid=str(record.get("kid", "")))


def _of_pem(path: str, text: str, certificate: bytes = b"") -> SigningKey:
    _jwt()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    pem = text[_begin(text) :].encode("utf-8", "replace")
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise HostError(path, "is protected by a passphrase", "store it without one, mode 0600") from None
    except UnsupportedAlgorithm:
        raise HostError(path, "is a key of a kind that is not supported", "RSA, EC (P-256, P-384, P-521)") from None
    return SigningKey(key, _algorithms(path, key), certificate=certificate)


def _begin(text: str) -> int:
    found = _PRIVATE.search(text)
    if not found:
        raise ValueError
    return found.start()


def _algorithms(path: str, key: Any) -> tuple[str, ...]:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < 2048:
            raise HostError(path, f"is an RSA key of {key.key_size} bits", "2048 or more (RFC 7518 3.3)")
        return ("RS256", "PS256")
    if isinstance(key, ec.EllipticCurvePrivateKey):
        by_curve = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
        if key.curve.name in by_curve:
            return (by_curve[key.curve.name],)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return ("EdDSA",)
    raise HostError(path, "is a key of a kind that is not supported", "RSA, EC (P-256, P-384, P-521), Ed25519")


def _what_else(text: str) -> str:
    if "BEGIN PUBLIC KEY" in text:
        return "is a public key"
    if "BEGIN CERTIFICATE" in text:
        return "is a certificate without its private key"
    if "BEGIN OPENSSH PRIVATE KEY" in text:
        return "is an OpenSSH key"
    if "BEGIN ENCRYPTED PRIVATE KEY" in text:
        return "is protected by a passphrase"
    return "is not a private key"


def sign(key: SigningKey, claims: Mapping[str, Any], accepted: tuple[str, ...] = ()) -> Secret:
    """The claims as a signed JWT; ``accepted``: the algorithms that the server takes, () when it does not say.

    A certificate is named by its thumbprints (RFC 7515 4.1.7, 4.1.8), as Microsoft finds its key by them.
    """
    jwt = _jwt()
    usual = key.algorithms[0]
    algorithm = next((name for name in key.algorithms if name in accepted), usual)
    headers = {"kid": key.kid} if key.kid else {}
    if key.certificate:
        headers["x5t"] = _base64url(hashlib.sha1(key.certificate, usedforsecurity=False).digest())
        headers["x5t#S256"] = _base64url(hashlib.sha256(key.certificate).digest())
    signed = jwt.encode(dict(claims), key.key, algorithm=algorithm, headers=headers)
    return Secret(signed.decode() if isinstance(signed, bytes) else signed)  # bytes: PyJWT 1


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _jwt() -> Any:
    """PyJWT, which without cryptography signs by shared secrets only."""
    import importlib

    try:
        importlib.import_module("cryptography")
        return importlib.import_module("jwt")
    except ImportError:
        raise LibraryMissing(LIBRARIES) from None
