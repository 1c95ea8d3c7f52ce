# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The last net: texts that look like a secret are masked, wherever they come from.

The collection's modules mask what they know to be secret. This net is for what they cannot know: the words of other
programs, hand-written configuration in a diff, and secrets that the caller names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...module_utils.core.redaction import MASK, Redactor

ARGUMENTS = ("password", "client_secret", "access_token", "refresh_token", "authorization_response", "proxy")
UNTOLD = ("VALUE_SPECIFIED_IN_NO_LOG_PARAMETER", MASK)
SAID = re.compile(r"\(\w+\)|\*+|none|true|false|yes|no|omit", re.IGNORECASE)  # what is no secret, after password:

# Each with the secret as its group `secret`.
EVERYWHERE = (
    # PEM (RFC 7468)
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?P<secret>[\s\S]*?)(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)",
    # JSON Web Tokens (RFC 7519): three base64url parts, the first an object
    r"\b(?P<secret>eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)",
    # Microsoft: refresh tokens and client secrets; Google: access and refresh tokens, client secrets
    r"\b(?P<secret>[01]\.A[\w.-]{40,})",
    r"(?P<secret>\b[\w~.-]{3}\dQ~[\w~.-]{31,34})",
    r"\b(?P<secret>(?:ya29\.|1//0|GOCSPX-)[\w./-]{10,})",
    # HTTP (RFC 6750) and SASL's first answer in SMTP (RFC 4954)
    r"\bBearer\s+(?P<secret>[\w.~+/-]{8,}=*)",
    r"\bAUTH\s+(?:PLAIN|LOGIN|XOAUTH2|OAUTHBEARER|CRAM-MD5)\s+(?P<secret>[\w+/]{8,}=*)",
    # an address with a password in it (RFC 3986 3.2.1)
    r"\b[a-z][a-z0-9+.-]{0,30}://[^\s/:@]*:(?P<secret>[^\s/@]+)@",
    # password=x, "client_secret": "x", and `password: x` where the line ends: more words are a sentence
    r"(?<![\w/.-])[\"']?(?:[\w-]*[_-])?(?:password|passwd|passphrase|secret|access_token|refresh_token)[\"']?"
    r"(?:\s*=\s*|\s*:\s*(?=[\"'])|\s*:\s*(?=[^\s,}\"']+\s*(?:$|[,}])))"
    r"(?P<secret>\"[^\"\n]+\"|'[^'\n]+'|[^\s,;}\"']+)",
)
IN_CONFIGURATION = (
    # msmtprc, netrc: a line `password x`; its neighbour passwordeval names a command
    r"^[ \t+-]{0,20}password[ \t]+(?P<secret>\S.*)$",
    # a Postfix password map: `[relay]:587 user:x`
    r"^[ \t+-]{0,20}(?:\[[\w.:-]+\]|[\w.-]+)(?::\w+)?[ \t]+[^\s:=/\[\]]+:(?P<secret>[^\s:/]\S*)$",
    # Exim's client_send, and its colon lists of user and password
    r"^[ \t+-]{0,20}client_send[ \t]*=[ \t]*(?P<secret>\S.*)$",
)


def _compiled(patterns: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.IGNORECASE | re.MULTILINE) for pattern in patterns)


class Net:
    """Masks known secrets, in all their spellings, and what looks like one."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = frozenset(one for one in secrets if one and one not in UNTOLD)
        self._redactor = Redactor(self._secrets)
        self._seen: dict[str, str] = {}  # a fleet says the same things over and over
        self._others: dict[frozenset[str], Net] = {}

    def of_results(self, results: Iterable[Mapping[str, Any]]) -> Net:
        """A net that knows also the secrets among the arguments of these results.

        Ansible keeps the arguments in a registered result, and from 2.22 on does not mask them there.
        """
        found = frozenset(secret for one in results for secret in _arguments(one)) - self._secrets
        if not found:
            return self
        if found not in self._others:
            self._others[found] = Net(self._secrets | found)
        return self._others[found]

    def text(self, text: str) -> str:
        """The text with a mask for each secret in it."""
        if text not in self._seen:
            known = self._redactor.text(text) if self._secrets else text
            self._seen[text] = _through(_EVERYWHERE, known)
        return self._seen[text]

    def configuration(self, text: str) -> str:
        """The same for lines of configuration files, where a word has less need of others to be a secret."""
        return _through(_IN_CONFIGURATION, self.text(text))


def _arguments(result: Mapping[str, Any]) -> Iterator[str]:
    invocation = result.get("invocation")
    arguments = invocation.get("module_args") if isinstance(invocation, Mapping) else None
    for name in ARGUMENTS:
        secret = arguments.get(name) if isinstance(arguments, Mapping) else None
        if isinstance(secret, str) and secret not in UNTOLD:
            yield str.__str__(secret)


def _through(patterns: Iterable[re.Pattern[str]], text: str) -> str:
    for pattern in patterns:
        text = pattern.sub(_masked, text)
    return text


def _masked(found: re.Match[str]) -> str:
    secret = found.group("secret")
    if SAID.fullmatch(secret.strip("\"'")):
        return found.group()
    start, end = found.span("secret")
    whole = found.group()
    return whole[: start - found.start()] + MASK + whole[end - found.start() :]


_EVERYWHERE, _IN_CONFIGURATION = _compiled(EVERYWHERE), _compiled(IN_CONFIGURATION)
