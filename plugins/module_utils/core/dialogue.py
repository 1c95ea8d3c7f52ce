# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""One SMTP conversation over a socket, with every wait and every reply bounded.

Not smtplib: it bounds a line but not the lines of a reply nor the time that a dripping server may take, keeps
text that was sent in clear behind the answer to STARTTLS, and its ``login()`` fails on passwords that are not ASCII.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from .redaction import MASK, Redactor

if TYPE_CHECKING:
    import ssl

REPLY_LIMIT = 65536  # octets; RFC 5321 4.5.3.1.5 gives a line 512, RFC 4954 4 gives a challenge 12288
LINE_LIMIT = 256
ADDRESS_LIMIT = 8
SHOWN = 300  # of the relay's words

_REPLY_LINE = re.compile(rb"([2-5]\d\d)(?:([ -])(.*))?\Z", re.DOTALL)
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3} +")
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")  # alert and handshake, RFC 8446 5.1
_WORD = re.compile(r"[A-Za-z0-9+/=_-]{8,}")


class Failure(Exception):
    """A step that did not work: ``cause`` is a kind of the table in advice.py, ``words`` say what was seen."""

    def __init__(self, cause: str, words: str) -> None:
        super().__init__(words)
        self.cause = cause
        self.words = words


class Deadline:
    """The moment at which a step is over, however often the server says a little."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = monotonic() + seconds

    def left(self, waiting_for: str) -> float:
        """Seconds left; raises Failure when there are none."""
        left = self._end - monotonic()
        if left <= 0:
            raise self.missed(waiting_for)
        return left

    def missed(self, waiting_for: str) -> Failure:
        return Failure("timeout", f"{waiting_for}: no answer within {self.seconds:g} s")

    def earlier(self, seconds: float) -> Deadline:
        """The same step, over ``seconds`` before its end, so that something can be done in what is left."""
        sooner = Deadline(self.seconds)
        sooner._end = self._end - seconds
        return sooner


@dataclass(frozen=True)
class Reply:
    """A server's reply: its code and the text of each line."""

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """All lines as one, the enhanced status code (RFC 2034) said once."""
        status = _ENHANCED.match(self.lines[0])
        again = len(status.group()) if status else 0
        rest = (line[again:] if status and line.startswith(status.group()) else line for line in self.lines[1:])
        return " ".join([self.lines[0].strip(), *(line.strip() for line in rest)]).strip()

    def __str__(self) -> str:
        return shown(f"{self.code} {self.text}")


def shown(text: str) -> str:
    """Text from outside, fit for a message: printable and not long."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def failure_of(error: Exception, waiting_for: str, deadline: Deadline) -> Failure:
    """The Failure that an exception of the socket layer stands for."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return Failure("certificate", f"{error.verify_message} (X509 error {error.verify_code})")
    if isinstance(error, (socket.timeout, TimeoutError)):
        return deadline.missed(waiting_for)
    causes: tuple[tuple[type[Exception], str], ...] = (
        (ConnectionRefusedError, "refused"),
        (ConnectionError, "closed"),
        (ssl.SSLEOFError, "closed"),
        (ssl.SSLZeroReturnError, "closed"),
        (ssl.SSLError, "tls"),
        (socket.gaierror, "resolve"),
        (ValueError, "resolve"),  # a name that IDNA, SNI or the resolver cannot express
    )
    words = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
    cause = next((cause for kind, cause in causes if isinstance(error, kind)), "unreachable")
    return Failure(cause, f"{waiting_for}: {words}")


@contextlib.contextmanager
def _told_as(waiting_for: str, deadline: Deadline) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise failure_of(error, waiting_for, deadline) from error


def resolve(host: str, port: int, deadline: Deadline) -> list[Any]:
    """The addresses of ``host``, looked up in a thread because getaddrinfo() knows no time limit.

    Raises Failure (resolve, timeout).
    """
    found: list[Any] = []
    waiting_for = f"look-up of {host}"

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, ValueError) as error:
            found.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(deadline.left(waiting_for))
    if not found:
        raise deadline.missed(waiting_for)
    if isinstance(found[0], Exception):
        raise failure_of(found[0], waiting_for, deadline) from found[0]
    return list(found[0])


def connect(host: str, port: int, deadline: Deadline) -> Dialogue:
    """Open a connection, trying every address of ``host``, each with its share of the time.

    Raises Failure (resolve, refused, timeout, unreachable, closed); the words name each address.
    """
    addresses = resolve(host, port, deadline)[:ADDRESS_LIMIT]
    failures = []
    for tried, (family, _type, _protocol, _name, address) in enumerate(addresses):
        waiting_for = f"connection to {address[0]} port {port}"
        share = deadline.left(waiting_for) / (len(addresses) - tried)
        try:
            return Dialogue(_open(family, address, share), deadline)
        except OSError as error:
            failures.append(failure_of(error, waiting_for, deadline))
    told = min(failures, key=lambda failure: failure.cause == "unreachable")  # often only: this host has no IPv6
    raise Failure(told.cause, "; ".join(failure.words for failure in failures))


def _open(family: int, address: Any, seconds: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(seconds)
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        sock.close()
        raise
    return sock


class Dialogue:
    """An open connection. Every method raises Failure; ``deadline`` is renewed by whoever begins a step."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self.sock = sock
        self.deadline = deadline
        self.encrypted = False
        self.capabilities: dict[str, str] = {}
        self._buffer = b""
        self._redactor = Redactor()
        self._sent: list[str] = []
        self._our_turn = False

    def __enter__(self) -> Dialogue:
        return self

    def __exit__(self, *_exception: object) -> None:
        """Hang up; where the server waits for us, with a QUIT that nobody waits for."""
        self.deadline = Deadline(0.2)
        with contextlib.suppress(ConnectionError, Failure):
            if self._our_turn:
                self._send(b"QUIT\r\n", "QUIT")
        self.sock.close()

    def conceal(self, secret: str, sent: Iterable[bytes]) -> None:
        """From now on no reply repeats ``secret`` in any spelling, nor the base64 lines ``sent``, not even in part."""
        self._redactor.learn(secret)
        for line in sent:
            self._redactor.learn(line.decode())
            self._sent.append(line.decode().lower())

    def hidden(self, text: str) -> str:
        """``text`` without the secrets; servers echo our lines whole, cut off or in capitals."""
        text = self._redactor.text(text)
        return _WORD.sub(lambda m: MASK if any(m.group().lower() in line for line in self._sent) else m.group(), text)

    def command(self, line: bytes, waiting_for: str = "") -> Reply:
        """Send one line and read the reply. A line that holds CR, LF or NUL is refused, not sent."""
        if re.search(rb"[\r\n\0]", line):
            raise Failure("control", "a line break or NUL in what is to be sent")
        waiting_for = waiting_for or line.split(b" ")[0].decode()
        with contextlib.suppress(ConnectionError):  # what the server said before it hung up is still to be read
            self._send(line + b"\r\n", waiting_for)
        return self.read_reply(waiting_for)

    def send_data(self, data: bytes) -> Reply:
        """Send what follows DATA, already in wire form, and read the reply."""
        with contextlib.suppress(ConnectionError):
            self._send(data, "message")
        return self.read_reply("message")

    def _send(self, data: bytes, waiting_for: str) -> None:
        self._our_turn = False
        left = memoryview(data)
        while left:
            self.sock.settimeout(self.deadline.left(waiting_for))
            try:
                left = left[self.sock.send(left) :]
            except ConnectionError:
                raise
            except OSError as error:
                raise failure_of(error, waiting_for, self.deadline) from error

    def read_reply(self, waiting_for: str) -> Reply:
        """Read one reply, however many lines it has up to the limits (RFC 5321 4.2)."""
        lines: list[str] = []
        size, code = 0, b""
        while True:
            line = self._read_line(REPLY_LIMIT - size, waiting_for)
            size += len(line) + 1
            match = _REPLY_LINE.match(line.rstrip(b"\r"))
            if not match or code not in (b"", match.group(1)):
                raise self._garbage(line)
            code = match.group(1)
            lines.append(self.hidden((match.group(3) or b"").decode("utf-8", "replace")))
            if match.group(2) != b"-":
                self._our_turn = code not in (b"221", b"421")
                return Reply(int(code), tuple(lines))
            if len(lines) >= LINE_LIMIT:
                raise Failure("flood", f"{waiting_for}: more than {LINE_LIMIT} lines in one reply")

    def _read_line(self, limit: int, waiting_for: str) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) >= limit:
                raise Failure("flood", f"{waiting_for}: more than {REPLY_LIMIT} bytes in one reply")
            self._buffer += self._receive(waiting_for)
            if len(self._buffer) >= 3 and not self._buffer[:3].isdigit():  # would never become a reply
                raise self._garbage(self._buffer)
        line, _rest, self._buffer = self._buffer.partition(b"\n")
        return line

    def _receive(self, waiting_for: str) -> bytes:
        self.sock.settimeout(self.deadline.left(waiting_for))
        with _told_as(waiting_for, self.deadline):
            data = self.sock.recv(4096)
        if not data:
            raise Failure("closed", f"{waiting_for}: the server closed the connection")
        return data

    def _garbage(self, data: bytes) -> Failure:
        if data[:2] in _TLS_RECORDS:
            return Failure("tls_first", "the server answered with a TLS record")
        words = self.hidden(data[:80].decode("utf-8", "replace"))
        return Failure("garbage", f'not an SMTP reply: "{shown(words.strip())}"')

    def ehlo(self, name: str) -> Reply:
        """Say EHLO as ``name`` (or as our address literal, RFC 5321 4.1.3) and note what the server can."""
        reply = self.command(f"EHLO {name or self._address_literal()}".encode())
        if reply.code == 250:
            self.capabilities = parse_capabilities(reply.lines[1:])
        return reply

    def _address_literal(self) -> str:
        address = self.sock.getsockname()[0]
        return f"[IPv6:{address}]" if ":" in address else f"[{address}]"

    def starttls(self, context: ssl.SSLContext, name: str) -> Reply | None:
        """Ask for TLS and begin it; the reply is returned when the server does not want to."""
        reply = self.command(b"STARTTLS")
        if reply.code != 220:
            return reply
        if self._buffer:  # RFC 3207 4.2, CVE-2011-0411: someone between put words into the server's mouth
            raise Failure("injection", "the server sent more in clear text behind its answer to STARTTLS")
        self.begin_tls(context, name, "TLS handshake after STARTTLS")
        return None

    def begin_tls(self, context: ssl.SSLContext, name: str, waiting_for: str = "TLS handshake") -> None:
        """Do the handshake; what the server said before counts no longer (RFC 3207 4.2)."""
        self.capabilities = {}
        after_starttls, self._our_turn = self._our_turn, False
        with _told_as(waiting_for, self.deadline):
            self.sock = context.wrap_socket(self.sock, server_hostname=name, do_handshake_on_connect=False)
            self.sock.settimeout(self.deadline.left(waiting_for))
            self.sock.do_handshake()
        self.encrypted, self._our_turn = True, after_starttls


def parse_capabilities(lines: Iterable[str]) -> dict[str, str]:
    """Keyword -> parameters of an EHLO reply; ``AUTH=PLAIN`` of old servers is read as ``AUTH PLAIN``."""
    found: dict[str, str] = {}
    for line in lines:
        keyword, _rest, parameters = re.sub(r"(?i)\AAUTH=", "AUTH ", line.strip()).partition(" ")
        keyword = keyword.upper()
        found[keyword] = f"{found.get(keyword, '')} {parameters}".strip()
    return found
