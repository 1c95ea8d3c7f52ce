# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from unit.exim_host import (
    LOGIN,
    SAID,
    TEMPLATE,
    deploy,
    installed,
    running,
    service,
)
from unit.fake_host import Call, FakeHost

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends import exim_files
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.base import Observed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.exim import Exim
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import StepFailed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.host import Completed

# -- what Exim itself says -------------------------------------------------------------------------------------------


def test_the_effective_state_is_asked_of_exim_in_one_call():
    host = running()
    host.put(exim_files.CREDENTIALS, "*:fleet:s3cret\n")
    found = Exim(host).read("default")
    wanted = Exim(host).wanted_form(service(ca_file="/etc/ssl/ca.pem", from_address="ops@example.com", **LOGIN))
    assert {key: found.form[key] for key in wanted} == wanted
    assert (found.running, found.faults, found.overrides, found.warnings) == (True, [], [], [])
    assert len(host.calls) == 1


@pytest.mark.parametrize(
    ("old", "new", "field", "value"),
    [
        ("hosts_require_tls = *", "hosts_require_tls =", "security", "opportunistic"),
        ("hosts_avoid_tls =", "hosts_avoid_tls = *", "security", "none"),
        ("protocol = smtp", "protocol = smtps", "security", "tls"),
        ("tls_verify_hosts = *", "tls_verify_hosts =", "validate_certs", False),
        ("tls_verify_hosts = *", "tls_verify_hosts = some.example", "validate_certs", None),
        ("tls_verify_cert_hostnames = *", "tls_verify_cert_hostnames =", "validate_certs", None),
        ("/etc/ssl/ca.pem", "system", "ca_file", ""),
        ("{ops@example.com}}", "{other@example.com}}", "from_address", ""),
        ("hold_domains =", "hold_domains = ! +local_domains", "enabled", False),
        ("hold_domains =", "hold_domains = one.example", "enabled", True),
        ("::587 byname", " byname", "port", 25),
        ("route_list = * relay.example.com::587 byname\n", "router smarthost not found\n", "host", ""),
    ],
)
def test_each_deviation_is_told_in_the_forms_words(old, new, field, value):
    assert Exim(running(SAID.replace(old, new, 1))).read("default").form[field] == value


def test_no_password_goes_out_without_tls_unless_allowed():
    plain = SAID.replace("hosts_avoid_tls =", "hosts_avoid_tls = *")
    for said, auth_type in ((plain, "none"), (plain + "AUTH_CLIENT_ALLOW_NOTLS_PASSWORDS=1\n", "password")):
        host = running(said)
        host.put(exim_files.CREDENTIALS, "*:fleet:s3cret\n")
        assert Exim(host).read("default").form["auth_type"] == auth_type


def test_an_option_of_ours_that_is_not_effective_is_told():
    host = running(SAID.replace("hosts_require_auth = *", "hosts_require_auth ="))
    deploy(host, service(**LOGIN))
    assert ("hosts_require_auth", "", "*") in Exim(host).read("default").faults


def test_a_configuration_that_exim_refuses_is_told_and_replaced():
    host = running()
    host.programs["exim4"] = Completed(1, "", "Exim configuration error in line 9: option unknown")
    found = Exim(host).read("default")
    assert found.form == {}
    assert "line 9" in found.warnings[0]


def test_a_configuration_of_its_own_is_reported():
    found = Exim(running(**{exim_files.WHOLE: "primary_hostname = x\n"})).read("default")
    assert [one.option for one in found.overrides] == [exim_files.WHOLE]
    assert exim_files.WHOLE in found.warnings[0]


def test_a_redefined_macro_is_found():
    host = running(SAID.replace("hosts_require_tls = *", "hosts_require_tls ="))
    deploy(host, service())
    host.put(exim_files.TEMPLATE, "REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS ==\n" + TEMPLATE)
    overrides = Exim(host).read("default").overrides
    assert [(one.option, one.problem) for one in overrides] == [
        (exim_files.TEMPLATE, "redefines REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS after us")
    ]


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        ("/proc/77/comm", "exim4\n", True),
        ("/proc/77/comm", "bash\n", False),
        ("/run/exim4/exim.pid", "", False),
        ("/etc/default/exim4", "QUEUERUNNER='nodaemon'\n", None),
        ("/etc/inetd.conf", "smtp stream tcp nowait Debian-exim /usr/sbin/exim4 exim4 -bs\n", None),
        ("/etc/inetd.conf", "#smtp stream tcp nowait x y\n", True),
    ],
)
def test_whether_the_daemon_runs_is_seen_without_a_process(path, content, expected):
    host = running()
    host.put(path, content)
    assert Exim(host).read("default").running is expected


# -- making it so ----------------------------------------------------------------------------------------------------


def test_it_is_switched_and_the_daemon_told():
    host = running()
    backend = Exim(host)
    before = backend.read("default")
    backend.activate(before, service())
    backend.settle(before, service())
    assert backend.actions == [
        "update-exim4.conf", "sh -c kill -HUP 77", "sh -c exim4 -qf </dev/null >/dev/null 2>&1 &",
    ]  # fmt: skip


def test_it_is_started_when_it_does_not_run():
    host = running()
    host.remove("/run/exim4/exim.pid")
    backend = Exim(host)
    backend.activate(backend.read("default"), service())
    assert host.served == [("start", "exim4")]


def test_nothing_is_started_where_no_daemon_is_wanted_or_nothing_is_left_to_do():
    for files, wanted in (({"/etc/default/exim4": "QUEUERUNNER=nodaemon\n"}, service()), ({}, None)):
        host = running(**files)
        host.remove("/run/exim4/exim.pid")
        backend = Exim(host)
        backend.activate(backend.read("default"), wanted)
        assert host.served == []


def test_held_mail_is_let_go_only_when_enabled():
    backend = Exim(running())
    backend.settle(Observed({}), service(enabled=False))
    backend.settle(Observed({}), None)
    assert backend.actions == []


def test_a_roll_back_gives_back_the_very_configuration():
    host = running()
    host.groups.add("Debian-exim")
    host.put(exim_files.GENERATED, "edited = by hand\n", 0o644, "root", "Debian-exim")
    backend = Exim(host)
    backend.activate(backend.read("default"), service())
    host.put(exim_files.GENERATED, "the new one\n")
    backend.restore(True)
    assert host.text(exim_files.GENERATED) == "edited = by hand\n"
    assert backend.actions[-1] == "sh -c kill -HUP 77"


@pytest.mark.parametrize(("was", "now", "served"), [(True, False, "start"), (False, True, "stop"), (True, True, "")])
def test_a_roll_back_after_a_crash_makes_the_configuration_anew(was, now, served):
    host = running()
    if not now:
        host.remove("/run/exim4/exim.pid")
    backend = Exim(host)
    backend.restore(was)
    assert backend.actions[0] == "update-exim4.conf"
    assert host.served == ([(served, "exim4")] if served else [])


def test_exim_judges_candidates_beside_the_live_files():
    seen: list[Call] = []
    host = running()
    place = "/var/lib/fleetmail/smtp/candidate-exim"
    host.programs["cp"] = Completed(0, "", "")

    def update(call: Call) -> Completed:
        seen.append(call)
        assert host.text(place + "/update-exim4.conf.conf") == "new conf"
        assert host.text(place + "/exim4.conf.template") == "macros\n" + TEMPLATE  # update-exim4.conf -d forgets them
        return Completed(0, "", "")

    host.programs["update-exim4.conf"] = update
    host.put("/staged/conf", "new conf")
    host.put("/staged/macros", "macros\n")
    staged = {exim_files.CONF: "/staged/conf", exim_files.MONOLITHIC_MACROS: "/staged/macros"}
    assert Exim(host).check(staged) == []
    assert seen[0].argv == ["update-exim4.conf", "-d", place, "-o", place + "/generated"]
    assert host.calls[-1].argv == ["exim4", "-C", place + "/generated", "-bV"]
    assert not host.exists(place)
    host.programs["exim4"] = Completed(1, "", "error in line 3")
    with pytest.raises(StepFailed, match="line 3"):
        Exim(host).check(staged)


def test_a_tree_without_exim_is_judged_by_our_rules_alone():
    assert "this collection's rules alone" in Exim(FakeHost({}, live=False)).check({})[0]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("2026-11-23 19:16:50 Exim configuration error in line 959 of x:", True),
        ("1xVZLM-00004v-2v == a@b R=smarthost defer (-48): x: failed to open /etc/exim4/passwd.client for", True),
        ("1xVZLM-00004v-2v remote host address is the local host: example.org", True),
        ("1xVZLM-00004v-2v == a@b R=smarthost T=remote_smtp_smarthost defer (-37): TLS session", False),
    ],
)
def test_complaints_are_those_about_the_configuration(line, told):
    assert bool(Exim(installed()).complaints(f"x\n{line}\ny")) is told


def test_what_was_said_of_the_old_configuration_is_no_complaint():
    host = running()
    backend = Exim(host)
    host.log_text = "Exim configuration error in line 1\n"
    backend.activate(backend.read("default"), service())
    assert backend.complaints(host.log_text) == ""
    host.log_text += "Exim configuration error in line 2\n"
    assert "line 2" in backend.complaints("")


# -- a mail on its way -----------------------------------------------------------------------------------------------

ID, NEW_ID = "1xVZIx-00004D-1C", "1xVZXP-0000000004E-0Ko3"
MAIL = b"From: a@b.example\nMessage-ID: <m.1@b.example>\n\nhi\n"
CAME = "2026-11-23 19:02:19 {0} <= a@b.example U=root P=local S=333 id=m.1@b.example\n"
ROUTE = "R=smarthost T=remote_smtp_smarthost"
GONE = "2026-11-23 19:02:19 {0} => x@example.org " + ROUTE + ' H=r [10.0.0.1] C="250 2.0.0 Queued \\"as\\" 1"\n'
DONE = "2026-11-23 19:02:19 {0} Completed\n"


def followed(*lines: str, timeout: float = 0.0, queue_id: str = ID) -> tuple[bool, str, str]:
    host = running()

    def take(call: Call) -> Completed:
        host.log_text += (
            "".join(lines).format(queue_id) if "-i" in call.argv else GONE.format(queue_id) + DONE.format(queue_id)
        )
        return Completed(0, "", "")

    host.programs["exim4"] = take
    return tuple(Exim(host).submit(MAIL, "a@b.example", ["x@example.org"], timeout))


@pytest.mark.parametrize("queue_id", [ID, NEW_ID])
def test_the_relays_reply_is_found(queue_id):
    found = followed(CAME, GONE, DONE, queue_id=queue_id)
    assert found == (True, '250 2.0.0 Queued \\"as\\" 1', queue_id)


@pytest.mark.parametrize(
    ("lines", "reply"),
    [
        ([CAME], "still in the queue"),
        (["{0} <= other id=another@b.example\n"], "Exim's main log never named it"),
        (
            [CAME, f"{{0}} ** x@example.org {ROUTE} H=r [1]: 550 5.1.1 no such user\n", DONE],
            "H=r [1]: 550 5.1.1 no such user",
        ),
        ([CAME, "{0} ** x@example.org: Unrouteable address\n", DONE], "x@example.org: Unrouteable address"),
        ([CAME, f"{{0}} == x@example.org {ROUTE} defer (-37): TLS session\n"], "TLS session"),
        (
            [CAME, "{0} => u <u@b.example> R=local_user T=mail_spool\n", DONE],
            "delivered on this host, not by the relay",
        ),
        ([CAME, GONE], "still in the queue"),
    ],
)
def test_it_is_told_why_it_did_not_arrive(lines, reply):
    sent, words, _rest = followed(*lines)
    assert not sent
    assert words.startswith(reply)


def test_an_earlier_failure_of_the_relay_does_not_keep_it_waiting():
    waiting = f"{{0}} == x@example.org {ROUTE} defer (-53): retry time not reached for any host for 'example.org'\n"
    assert followed(CAME, waiting, timeout=2.0)[0]


def test_a_mail_that_did_not_leave_is_taken_out_of_the_queue():
    host = running()
    came = CAME.format(ID)

    def take(call: Call) -> Completed:
        host.log_text += came if "-i" in call.argv else ""
        return Completed(0, "", "")

    host.programs["exim4"] = take
    assert not Exim(host).submit(MAIL, "a@b.example", ["x@example.org"], 0).sent
    assert host.calls[-1].argv == ["exim4", "-Mrm", ID]


def test_a_mail_that_exim_does_not_take_is_told():
    host = running()
    host.programs["exim4"] = Completed(1, "", "exim: permission denied")
    assert Exim(host).submit(MAIL, "", ["x@example.org"], 1) == (False, "exim: permission denied", "")
