# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What a server's JSON says, read with mistrust: numbers that are none, words that hold secrets."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

YEAR = 366 * 86400
LONGEST = 300  # characters of the server's words that are told
# Keycloak and Google have names of their own for it; there is no standard one
REFRESH_EXPIRY = ("refresh_expires_in", "refresh_token_expires_in")

_AADSTS = re.compile(r"AADSTS(\d{4,10})")
_TRACE = re.compile(r"\s*Trace ID:.*", re.DOTALL)
_VSCHAR = re.compile(r"[\x21-\x7e]+\Z")  # RFC 6749 appendix A.12 and A.17, without the space
_TOKEN_LIKE = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)*")  # a JWT: JSON begins with {"


class Complaint(NamedTuple):
    """A refusal as the server worded it (RFC 6749 5.2), each in one line; not yet redacted."""

    error: str
    suberror: str = ""
    description: str = ""
    codes: tuple[str, ...] = ()


def json_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that a body is; None for everything else."""
    try:
        found = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def complaint(said: Mapping[str, Any]) -> Complaint | None:
    """The error that an answer holds; None where it holds none."""
    error = said.get("error")
    if not error:
        return None
    if isinstance(error, dict):  # as Google's API gateway and Yahoo's do
        words = error.get("message") or error.get("localizedMessage") or error.get("description")
        error, description = error.get("status") or error.get("errorId") or error.get("code"), words
    else:
        description = said.get("error_description") or said.get("error_message")
    told = _line(description)
    numbers = said.get("error_codes")
    codes = [str(number) for number in numbers if _is_code(number)] if isinstance(numbers, list) else []
    codes += [code for code in _AADSTS.findall(told) if code not in codes]
    suberror = said.get("suberror") or said.get("error_subtype")
    return Complaint(_line(error), _line(suberror), _TRACE.sub("", told), tuple(codes[:5]))


def short(text: str) -> str:
    """The text as it may be told: a JWT in it masked, cut."""
    text = _TOKEN_LIKE.sub("********", text)
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def seconds(value: Any, longest: int = YEAR) -> int | None:
    """A life time as whole seconds, at most ``longest``; None where it is not said, or not sensibly.

    Servers send it as a string or with a fraction; zero and less stand for "not known" (Keycloak's refresh_expires_in).
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return longest if isinstance(value, int) and value > 0 else None
    if math.isnan(number) or number < 1:
        return None
    return int(min(number, longest))


def retry_after(headers: Mapping[str, str], now: float) -> int | None:
    """Seconds to wait by the header Retry-After (RFC 9110 10.2.3: seconds or a date), at most a day; None without."""
    value = headers.get("retry-after", "").strip()
    if re.match(r"[0-9]{1,9}\Z", value):
        return min(int(value), 86400)
    date = http_date(value)
    return None if date is None else max(0, min(int(date - now), 86400))


def http_date(value: str) -> float | None:
    """Epoch seconds of an HTTP date (RFC 9110 5.6.7), None for what is none."""
    try:
        return parsedate_to_datetime(value).timestamp() if value else None
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def scope_words(value: Any) -> tuple[str, ...] | None:
    """The granted scope; None where the server named none. Some separate by commas, some send a list."""
    if isinstance(value, list):
        value = " ".join(word for word in value if isinstance(word, str))
    if not isinstance(value, str) or not value.strip():
        return None
    return tuple(dict.fromkeys(value.replace(",", " ").split()))


def token_text(value: Any) -> str:
    """A token that can stand in a header and in a line of a file; "" for what is none."""
    return value if isinstance(value, str) and _VSCHAR.match(value) else ""


def _line(value: Any) -> str:
    """Any value as one printable line."""
    if value is None or isinstance(value, (dict, list)):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def _is_code(value: Any) -> bool:
    return bool(re.match(r"[0-9]{1,10}\Z", str(value)))
