# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said of a hub before it is opened, above all that it must not be open to everybody."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetmail.smtp.plugins.filter.relay_hub import (
    FilterModule,
    relay_hub_answer,
    relay_hub_problems,
)

SUM = ":".join(["AB"] * 32)
GOOD: dict[str, Any] = {
    "relay_hub_listen": ["0.0.0.0:587"],
    "relay_hub_security": "starttls",
    "relay_hub_certificate": "/etc/ssl/hub.pem",
    "relay_hub_certificate_key": "/etc/ssl/hub.key",
    "relay_hub_networks": ["10.20.0.0/16"],
    "relay_hub_clients": [],
    "relay_hub_client_ca": "",
    "relay_hub_message_size": 10240000,
    "relay_hub_recipients": 100,
    "relay_hub_connections": 20,
    "relay_hub_messages_per_minute": 300,
    "relay_hub_processes": 50,
}
SAID = [
    "entry smtp inet n - y - - smtpd",
    "mynetworks 127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128",
    "inet_protocols all",
    "message_size_limit 10240000",
]


def problems(said: list[str] | None = None, **wanted: Any) -> list[str]:
    found: list[str] = FilterModule().filters()["relay_hub_problems"](
        {**GOOD, **wanted}, SAID if said is None else said
    )
    return found


def test_a_good_one() -> None:
    assert problems() == []
    assert problems(relay_hub_networks=["10.0.0.0/8", "192.0.2.7", "fd00::/8", "2001:db8::/32"]) == []
    assert problems(relay_hub_networks=[], relay_hub_clients=[{"name": "web1", "fingerprint": SUM}]) == []
    assert problems(relay_hub_networks=[], relay_hub_client_ca="/etc/ssl/ca.pem") == []
    assert problems(relay_hub_listen=["10.0.0.1:2525", "[::]:587"]) == []
    assert problems(relay_hub_security="none", relay_hub_certificate="", relay_hub_certificate_key="") == []
    assert problems(["no postfix"]) == []


@pytest.mark.parametrize(
    "networks",
    [
        ["0.0.0.0/0"],
        ["::/0"],
        ["0.0.0.0/1", "128.0.0.0/1"],
        ["0.0.0.0/2", "64.0.0.0/2", "10.0.0.0/8"],
        [f"{first}.0.0.0/8" for first in range(256)],
        ["::ffff:0.0.0.0/96"],
        ["::/1", "8000::/1"],
        ["2000::/3"],
        ["10.0.0.0/7"],
        ["10.0.0.1/8"],
        ["hash:/etc/postfix/open"],
        ["!10.0.0.0/8"],
        ["example.com"],
        [""],
    ],
)
def test_networks_that_are_none_or_far_too_wide(networks: list[str]) -> None:
    assert any(told.startswith("relay_hub_networks: ") for told in problems(relay_hub_networks=networks))


@given(st.lists(st.integers(0, 255), min_size=128, max_size=256, unique=True))
def test_half_of_the_internet_is_never_a_network_of_leaves(firsts: list[int]) -> None:
    assert problems(relay_hub_networks=[f"{first}.0.0.0/8" for first in firsts])


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"relay_hub_networks": []}, "nobody may use the hub"),
        ({"relay_hub_listen": []}, "is empty"),
        ({"relay_hub_listen": ["587"]}, "is not an address and a port"),
        ({"relay_hub_listen": ["hub:587"]}, "is not an address and a port"),
        ({"relay_hub_listen": ["0.0.0.0:0"]}, "is not an address and a port"),
        ({"relay_hub_listen": ["::1:587"]}, "is not an address and a port"),
        ({"relay_hub_listen": ["0.0.0.0:587", "0.0.0.0:587"]}, "twice"),
        ({"relay_hub_listen": ["0.0.0.0:587 inet"]}, "is not an address and a port"),
        ({"relay_hub_listen": ["0.0.0.0:25"]}, "is taken by the entry 'smtp'"),
        ({"relay_hub_security": "none"}, ""),
        ({"relay_hub_security": "none", "relay_hub_client_ca": "/ca.pem"}, "relay_hub_client_ca: needs TLS"),
        ({"relay_hub_certificate": ""}, "relay_hub_certificate: is required"),
        ({"relay_hub_certificate_key": "key.pem"}, "is not an absolute path"),
        ({"relay_hub_certificate": "/etc/ssl/a b.pem"}, "is not an absolute path"),
        ({"relay_hub_certificate": "/etc/$mydomain.pem"}, "is not an absolute path"),
        ({"relay_hub_certificate": "/etc/a.pem\n  -o x=y"}, "is not an absolute path"),
        ({"relay_hub_clients": [{"name": "web 1", "fingerprint": SUM}]}, "is not a name"),
        ({"relay_hub_clients": [{"name": "web1", "fingerprint": "AB:CD"}]}, "no SHA-256 fingerprint"),
        ({"relay_hub_clients": [{"name": "w", "fingerprint": SUM}] * 2}, "names a leaf twice"),
        (
            {"relay_hub_clients": [{"name": "w", "fingerprint": SUM}], "relay_hub_client_ca": "/ca.pem"},
            "cannot go with relay_hub_clients",
        ),
        ({"relay_hub_recipients": 0}, "out of range"),
        ({"relay_hub_message_size": 20000000}, "Postfix takes 10240000 bytes at most"),
    ],
)
def test_what_is_wrong_is_told_by_the_variable(wanted: dict[str, Any], told: str) -> None:
    found = problems(**wanted)
    assert any(told in one for one in found) if told else not found, found


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("no file /etc/ssl/hub.pem", "/etc/ssl/hub.pem: is not there"),
        ("entry submission inet n - y - - smtpd", "is taken by the entry 'submission'"),
        ("entry 127.0.0.1:587 inet n - y - - smtpd", "is taken by the entry '127.0.0.1:587'"),
        ("mynetworks 10.0.0.0/8, 0.0.0.0/0", "would relay for everybody"),
        ("mynetworks [::]/0", "would relay for everybody"),
        ("inet_protocols ipv6", "needs IPv4"),
    ],
)
def test_what_stands_in_its_way_on_the_host(said: str, told: str) -> None:
    found = problems([*SAID, said])
    assert any(told in one for one in found), found


def test_our_own_entry_is_no_obstacle_and_ipv6_has_to_be_there() -> None:
    assert problems([*SAID, "entry 0.0.0.0:587 inet n - y - 50 smtpd"]) == []
    assert any("needs IPv6" in one for one in problems([*SAID, "no ipv6"], relay_hub_listen=["[::]:587"]))


def answer(*steps: tuple[str, bool], networks: tuple[str, ...] = ("10.20.0.0/16",), by: str = "networks") -> str:
    listed = [{"name": name, "ok": fine, "detail": "said so"} for name, fine in steps]
    permit = "permit_mynetworks" if by == "networks" else "permit_tls_clientcerts"
    return relay_hub_answer({"verification": {"steps": listed}}, "127.0.0.1", networks, permit)


def test_a_hub_has_to_refuse_its_own_host() -> None:
    begin = [("connect", True), ("ehlo", True), ("tls", True)]
    assert answer(*begin, ("mail", False)) == ""
    assert answer(*begin, ("rcpt", False)) == ""
    assert "takes mail from its own host" in answer(*begin, ("rcpt", True), ("rset", True))
    assert answer(*begin, ("rset", True), networks=("127.0.0.0/8",)) == ""
    assert "takes mail" in answer(*begin, ("rset", True), networks=("127.0.0.0/8",), by="certificates")
    assert "tls: said so" in answer(("connect", True), ("tls", False))
    assert "connect" in answer()
    assert relay_hub_problems(GOOD) == []
