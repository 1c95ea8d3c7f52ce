# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The keeper: the program on a host that keeps access tokens fresh, consumers' files right, and says how it stands."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable, NoReturn, TextIO

from ..errors import FleetmailError, HostError, Problem, unforeseen
from ..posix_host import PosixHost
from . import keeper_report as report
from .renewal import is_valid, poll_due, settled
from .status import view
from .store import STORE, Store
from .tokens import ensure, wake_again

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ..port import Host
    from .client import TokenClient
    from .registration import Registration
    from .tokens import Outcome

TEMPORARY_FAILURE = 75  # EX_TEMPFAIL of sysexits.h: who asks for a token that there is not tries again later
_EPILOG = """\
exit status of tick, status and refresh, as monitoring plugins have it: 0 every token is fine; 1 something has to be
done soon (expiring, pending, or unreachable while the access token is still valid); 2 mail cannot be sent with a
token; 3 it could not be found out. token: 0, or 75 when there is no valid token and the caller should try later.
"""


def main(arguments: Sequence[str], now: Callable[[], float] = time.time) -> int:
    """Run it; gives the exit status. Nothing that it prints but ``token``'s answer is secret."""
    told = _parser().parse_args(arguments)
    try:
        return int(told.run(_Keeper(told, PosixHost(), now)))
    except FleetmailError as error:
        return _cannot(error)
    except BrokenPipeError:
        sys.stderr.close()  # or Python would complain of it at its end
        return report.UNKNOWN
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return _cannot(unforeseen(error))


def _say(text: str, stream: TextIO) -> None:
    encoding = stream.encoding or "ascii"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


def _cannot(error: FleetmailError) -> int:
    for text in [str(problem) for problem in error.problems] or [error.message]:
        _say(report.line(text), sys.stderr)
    return report.UNKNOWN


def _parser() -> ArgumentParser:
    from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter

    class Parser(ArgumentParser):
        def error(self, message: str) -> NoReturn:
            self.print_usage(sys.stderr)
            self.exit(report.UNKNOWN, f"{self.prog}: {message}\n")  # argparse's own 2 is "critical" here

    parser = Parser("fleetmail-keeper", None, __doc__, _EPILOG, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--store", default=STORE, metavar="DIRECTORY", help="where grants are kept (%(default)s)")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    tick = commands.add_parser("tick", help="refresh what has to be, repair consumers' files")
    tick.add_argument(
        "--prometheus", metavar="FILE", help="write metrics there, for node_exporter's textfile collector"
    )
    tick.add_argument("--hook", action="append", default=[], metavar="PROGRAM", help="run it when a status changes")
    tick.add_argument("--quiet", action="store_true", help="print only what was done and what is wrong")
    tick.set_defaults(run=_Keeper.tick)
    status = commands.add_parser("status", help="tell how tokens stand; asks no server")
    status.add_argument("names", nargs="*", metavar="NAME", help="all of them, unless named")
    status.add_argument("--json", action="store_true", help="as JSON")
    status.set_defaults(run=_Keeper.status)
    refresh = commands.add_parser("refresh", help="ask the server for a new access token now")
    refresh.set_defaults(run=_Keeper.refresh)
    token = commands.add_parser("token", help="print a valid access token, for msmtp's passwordeval")
    token.set_defaults(run=_Keeper.token)
    for command in (refresh, token):
        command.add_argument("name", metavar="NAME")
    for command in (tick, status, refresh, token):  # before the command or after it; what is not given changes nothing
        command.add_argument("--store", default=SUPPRESS, metavar="DIRECTORY", help=SUPPRESS)
    return parser


class _Keeper:
    """One run of the program."""

    def __init__(self, told: Namespace, host: Host, now: Callable[[], float]) -> None:
        self.told, self.host, self.now = told, host, now
        self.store = Store(host, told.store)

    # -- commands ----------------------------------------------------------------------------------------------------

    def tick(self) -> int:
        """Refresh what has to be, repair what is not as it should be, and say what was done."""
        rows = [self._ticked(name) for name in self.store.names()]
        if self.told.hook:
            from .keeper_hooks import tell

            rows = [tell(self.store, row, self.told.hook, int(self.now())) for row in rows]
        for row in rows:
            if row.news or not self.told.quiet:
                _say(report.journal(row), sys.stdout)
        code = report.worst(rows)
        if self.told.prometheus:
            code = max(code, self._write_metrics(rows))
        return code

    def status(self) -> int:
        """Say how it stands, from the store alone."""
        rows = [self._seen(name) for name in self.told.names or self.store.names()]
        if self.told.json:
            _say(report.as_json(self.store.directory, rows, int(self.now())), sys.stdout)
        else:
            _say("\n".join(report.table(rows)), sys.stdout)
        return report.worst(rows)

    def refresh(self) -> int:
        """Ask the server, whatever the token's age."""
        row = self._row(self._ensured(self.told.name, force=True))
        _say(report.journal(row), sys.stdout)
        return report.worst([row])

    def token(self) -> int:
        """Print an access token. One that is still valid is good enough where no better one can be had."""
        name = self.told.name
        try:
            outcome = self._ensured(name, patient=True)
            state, words = outcome.state, report.said(self._row(outcome))
        except HostError as error:  # a full disk, a lock that is held: what is there can be read all the same
            state, words = settled(self.store.read(name), int(self.now())), str(error)
        access = state.access
        if access is not None and is_valid(access, int(self.now())):
            _say(access.token.reveal(), sys.stdout)
            return report.OK
        _say(report.line(f"{name}: there is no valid access token; {words}"), sys.stderr)
        return TEMPORARY_FAILURE

    # -- one token ---------------------------------------------------------------------------------------------------

    def _client(self, registration: Registration) -> TokenClient:
        from .client import TokenClient

        return TokenClient(registration, self.host, now=self.now)

    def _ensured(self, name: str, force: bool = False, patient: bool = False) -> Outcome:
        return ensure(self.store, name, self._client, self.now, force=force, patient=patient)

    def _ticked(self, name: str) -> report.Row:
        began = int(self.now())
        try:
            return self._row(wake_again(self.store, self._polled(self._ensured(name, patient=True)), began))
        except FleetmailError as error:
            return self._failed(name, error)
        except Exception as error:  # one token's trouble is not the others'
            return self._failed(name, unforeseen(error))

    def _polled(self, outcome: Outcome) -> Outcome:
        """With the authorization completed whose code a person has typed in meanwhile."""
        state = outcome.state
        if not poll_due(state, self.now()):
            return outcome
        from .authorization import finish
        from .client import Refused

        try:
            done = finish(self.store, state.name, "", self._client, self.now)
        except Refused:  # it is written down
            return outcome._replace(state=self.store.read(state.name), changed=True)
        changed, warnings = outcome.changed or done.refreshed, (*outcome.warnings, *done.warnings)
        return done._replace(changed=changed, refreshed=outcome.refreshed or done.refreshed, warnings=warnings)

    def _seen(self, name: str) -> report.Row:
        try:
            state = self.store.read(name)
        except FleetmailError as error:
            return self._failed(name, error)
        at = int(self.now())
        return report.Row(name, view(state, at), is_valid(state.access, at), reported=state.reported)

    def _row(self, outcome: Outcome) -> report.Row:
        state, at = outcome.state, int(self.now())
        shown, valid = view(state, at), is_valid(state.access, at)
        attempts = state.trouble.attempts if state.trouble else 0
        return report.Row(
            state.name, shown, valid, (), outcome.refreshed, outcome.changed, outcome.warnings, attempts, state.reported
        )

    def _failed(self, name: str, error: FleetmailError) -> report.Row:
        return report.Row(name, problems=tuple(error.problems or [Problem(name, error.message)]))

    def _write_metrics(self, rows: Sequence[report.Row]) -> int:
        import os

        from .keeper_metrics import metrics

        content = "".join(f"{one}\n" for one in metrics(rows, int(self.now()))).encode()
        try:
            self.host.replace(self.told.prometheus, content, 0o644, str(os.geteuid()), str(os.getegid()))
        except FleetmailError as error:
            return _cannot(error)
        return report.OK
