# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from unit.scripted_http import CLIENT, ISSUER, NOW, TOKENS, Script, said

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import HostError
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import signing
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.client import Refused
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.grants.registry import grant_type

RSA = rsa.generate_private_key(65537, 2048)
KEYS = {
    "RS256": RSA,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
PASSPHRASE = serialization.BestAvailableEncryption(b"x")


def pem(key: Any, kind: str = "PKCS8", encryption: Any = None) -> bytes:
    return bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            getattr(serialization.PrivateFormat, kind),
            encryption or serialization.NoEncryption(),
        )
    )


def public_pem(key: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))


def certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fleet")])
    begin = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(RSA.public_key())
    builder = builder.serial_number(1).not_valid_before(begin).not_valid_after(begin + timedelta(days=1))
    return builder.sign(RSA, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


CERTIFICATE = certificate()
GOOGLE = {
    "type": "service_account",
    "private_key": pem(RSA).decode(),
    "private_key_id": "key-1",
    "client_email": "robot@project.example",
}
JWK = {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA)), "kid": "jwk-1"}


def verified(token: str, key: Any, **more: Any) -> dict[str, Any]:
    algorithm = jwt.get_unverified_header(token)["alg"]
    options = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    return dict(jwt.decode(token, key.public_key(), algorithms=[algorithm], options=options, **more))


@pytest.mark.parametrize("algorithm", KEYS)
def test_every_kind_of_key_signs_by_its_algorithm(algorithm: str) -> None:
    key = signing.read_key("/k", pem(KEYS[algorithm]))
    token = signing.sign(key, {"iss": "x"}).reveal()
    assert jwt.get_unverified_header(token) == {"alg": algorithm, "typ": "JWT"}
    assert verified(token, KEYS[algorithm]) == {"iss": "x"}
    assert "PRIVATE" not in repr(key)


@pytest.mark.parametrize(
    ("content", "kid", "issuer"),
    [
        (pem(RSA), "", ""),
        (pem(RSA, "TraditionalOpenSSL"), "", ""),
        (b"# a comment\n\n" + pem(RSA), "", ""),
        (CERTIFICATE + pem(RSA), "", ""),
        (pem(RSA) + CERTIFICATE, "", ""),
        (json.dumps(GOOGLE).encode(), "key-1", "robot@project.example"),
        (json.dumps(JWK).encode(), "jwk-1", ""),
    ],
)
def test_the_files_that_a_key_comes_in(content: bytes, kid: str, issuer: str) -> None:
    key = signing.read_key("/k", content)
    assert (key.kid, key.issuer) == (kid, issuer)
    token = signing.sign(key, {"iss": "x"}).reveal()
    assert jwt.get_unverified_header(token).get("kid", "") == kid
    assert verified(token, RSA)


def test_a_certificate_is_named_by_its_thumbprints() -> None:
    der = x509.load_pem_x509_certificate(CERTIFICATE).public_bytes(serialization.Encoding.DER)
    header = jwt.get_unverified_header(signing.sign(signing.read_key("/k", pem(RSA) + CERTIFICATE), {}).reveal())
    for field, digest in (("x5t", hashlib.sha1), ("x5t#S256", hashlib.sha256)):
        assert header[field] == base64.urlsafe_b64encode(digest(der).digest()).rstrip(b"=").decode()


def test_the_servers_algorithm_where_the_key_can() -> None:
    key = signing.read_key("/k", pem(RSA))
    assert jwt.get_unverified_header(signing.sign(key, {}, ("PS256", "ES256")).reveal())["alg"] == "PS256"
    assert jwt.get_unverified_header(signing.sign(key, {}, ("ES256",)).reveal())["alg"] == "RS256"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not a private key"),
        (b"hunter2", "is not a private key"),
        (b"\xff\xfe\x00", "is not a private key"),
        (public_pem(RSA), "is a public key"),
        (CERTIFICATE, "is a certificate without its private key"),
        (pem(RSA, encryption=PASSPHRASE), "is protected by a passphrase"),
        (pem(RSA, "TraditionalOpenSSL", PASSPHRASE), "is protected by a passphrase"),
        (pem(RSA)[:400], "is not a private key that can be read"),
        (pem(RSA).replace(b"MII", b"XXX", 1), "is not a private key that can be read"),
        (pem(rsa.generate_private_key(65537, 1024)), "is an RSA key of 1024 bits"),
        (pem(ec.generate_private_key(ec.SECP256K1())), "is a key of a kind that is not supported"),
        (pem(dsa.generate_private_key(2048)), "is a key of a kind that is not supported"),
        (b"{", "is not a private key that can be read"),
        (b"{}", "is JSON, but not a private key"),
        (json.dumps({"kty": "RSA", "n": "x", "e": "AQAB"}).encode(), "is JSON, but not a private key"),
        (json.dumps({"kty": "oct", "k": "c2VjcmV0"}).encode(), "is a shared secret"),
        (json.dumps({"kty": "RSA", "d": "x", "n": "x", "e": "AQAB"}).encode(), "is not a"),
        (json.dumps({"private_key": "nonsense"}).encode(), "is not a private key that can be read"),
        (json.dumps({"private_key": None}).encode(), "is not a private key that can be read"),
    ],
)
def test_what_is_no_key(content: bytes, problem: str) -> None:
    with pytest.raises(HostError, match=problem) as found:
        signing.read_key("/etc/key.pem", content)
    assert "/etc/key.pem" in str(found.value)
    assert "hunter2" not in str(found.value)
    assert found.value.problems[0].hint


@pytest.mark.parametrize("missing", ["jwt", "cryptography"])
def test_a_library_that_is_not_there_is_named(missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(pem(RSA))
    client = Script(said(**TOKENS)).client(CLIENT._replace(jwt_key_file=str(file)))
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(Refused) as refused:
        client.signing_key()
    assert "python3-jwt" in refused.value.cause.next_step
    assert refused.value.cause.status == "misconfigured"


def test_a_key_file_that_is_not_there(tmp_path: Path) -> None:
    client = Script(said(**TOKENS)).client(CLIENT._replace(jwt_key_file=str(tmp_path / "none.pem")))
    with pytest.raises(Refused, match="is not there") as refused:
        client.signing_key()
    assert (refused.value.cause.name, refused.value.sent) == ("key_file", False)


def test_private_key_jwt(tmp_path: Path) -> None:
    """RFC 7523 2.2 and 3: who, for whom, until when, and never twice the same."""
    file = tmp_path / "key.pem"
    file.write_bytes(pem(RSA))
    known = CLIENT._replace(grant="client_credentials", client_secret=None, jwt_key_file=str(file))
    script = Script(said(**TOKENS))
    client = script.client(known)
    for _each in range(2):
        grant_type("client_credentials").renew(known, None, client)
    first, second = script.forms
    assert first["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert first["client_id"] == "fleet"
    assert "client_secret" not in first
    claims = verified(first["client_assertion"], RSA)
    assert claims.pop("jti") != verified(second["client_assertion"], RSA)["jti"]
    assert claims == {"iss": "fleet", "sub": "fleet", "aud": ISSUER + "/token", "iat": NOW, "exp": NOW + 300}


@pytest.mark.parametrize(
    ("content", "changes", "issuer", "life"),
    [
        (pem(RSA), {}, "fleet", 300),
        (
            json.dumps(GOOGLE).encode(),
            {"provider": "google", "client_id": "", "token_url": ""},
            GOOGLE["client_email"],
            3600,
        ),
        (json.dumps(GOOGLE).encode(), {"provider": "google", "client_id": "own"}, "own", 3600),
    ],
)
def test_jwt_bearer(content: bytes, changes: dict[str, str], issuer: str, life: int, tmp_path: Path) -> None:
    """RFC 7523 2.1, and Google's scope among the claims."""
    file = tmp_path / "key"
    file.write_bytes(content)
    known = CLIENT._replace(grant="jwt_bearer", client_secret=None, jwt_key_file=str(file), scope=("smtp",), **changes)
    script = Script(said(**TOKENS, refresh_token="none of these"))
    reply = grant_type("jwt_bearer").renew(known, None, script.client(known))
    assert reply.refresh_token is None
    form = script.forms[0]
    assert form.pop("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    claims = verified(form.pop("assertion"), RSA)
    assert form == {"scope": "smtp"}
    assert claims.pop("jti")
    assert claims == {
        "iss": issuer,
        "sub": "fleet@example.test",
        "aud": known.effective().token_url,
        "iat": NOW,
        "exp": NOW + life,
        "scope": "smtp",
    }


def test_the_subject_may_be_another_than_the_mailbox(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(pem(RSA))
    known = CLIENT._replace(grant="jwt_bearer", jwt_key_file=str(file), jwt_subject="boss@example.test")
    script = Script(said(**TOKENS))
    grant_type("jwt_bearer").renew(known, None, script.client(known))
    assert verified(script.forms[0]["assertion"], RSA)["sub"] == "boss@example.test"
    assert script.forms[0]["client_secret"] == "cl1ent+s3cret"


def test_microsoft_finds_a_key_by_its_certificate(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    known = CLIENT._replace(provider="microsoft365", tenant="a.example", jwt_key_file=str(file), client_secret=None)
    file.write_bytes(pem(RSA))
    with pytest.raises(Refused, match="no certificate beside the key"):
        Script(said(**TOKENS)).client(known).signing_key()
    file.write_bytes(pem(RSA) + CERTIFICATE)
    assert Script(said(**TOKENS)).client(known).signing_key().certificate
