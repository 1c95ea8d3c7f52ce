# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""TLS as a relay is judged by: the context, and what can be told of a certificate, verified or not."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .dialogue import Failure

if TYPE_CHECKING:
    import ssl

_SHORT = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "domainComponent": "DC",
}


def context(ca_file: str, verify: bool) -> ssl.SSLContext:
    """The client's context: TLS 1.2 or newer (RFC 8996), name and chain checked unless ``verify`` is false.

    Not create_default_context(): from Python 3.13 on it also refuses certificates that mail software accepts
    (VERIFY_X509_STRICT), and a probe has to judge alike everywhere. Raises Failure (ca_file).
    """
    import ssl

    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
        return made
    try:
        if ca_file:
            made.load_verify_locations(ca_file)
        else:
            made.load_default_certs()
    except OSError as error:  # SSLError too: the file holds no certificate
        reason = "it holds no PEM certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise Failure("ca_file", f"{ca_file}: {reason}") from error
    return made


def described(sock: Any) -> dict[str, Any]:
    """Version, cipher and certificate of a connection, in the words of the ``verification`` result."""
    cipher = sock.cipher()
    return {
        "version": sock.version(),
        "cipher": cipher[0] if cipher else None,
        **certificate(sock.getpeercert() or _decoded(sock.getpeercert(binary_form=True))),
    }


def _decoded(der: bytes | None) -> Mapping[str, Any]:
    """The fields of a certificate that was not verified, {} where they cannot be had.

    getpeercert() gives them for verified ones only, and no public function of the standard library decodes DER.
    _test_decode_cert() runs the same C code, is there from Python 2.6 to 3.14, and wants a file.
    """
    import _ssl
    import ssl

    with contextlib.suppress(OSError, AttributeError), tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(ssl.DER_cert_to_PEM_cert(der or b""))
        file.flush()
        fields: Mapping[str, Any] = _ssl._test_decode_cert(file.name)  # type: ignore[attr-defined]
        return fields
    return {}


def certificate(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Subject, issuer, names, end of validity (ISO 8601 UTC) and whole days left of what getpeercert() gives."""
    import ssl

    told: dict[str, Any] = dict.fromkeys(("subject", "issuer", "not_after", "days_left"))
    told["names"] = [value for kind, value in fields.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    if fields:
        told.update({key: _name(fields.get(key, ())) for key in ("subject", "issuer")})
    with contextlib.suppress(ValueError):  # no date, or one that is not a date
        end = ssl.cert_time_to_seconds(fields.get("notAfter", ""))
        told["not_after"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))
        told["days_left"] = int((end - time.time()) // 86400)
    return told


def _name(rdns: Any) -> str:
    """A distinguished name in the order in which people read it: CN=relay.example.com, O=Example."""
    pairs = [f"{_SHORT.get(key, key)}={value}" for rdn in rdns for key, value in rdn]
    return ", ".join(reversed(pairs))
