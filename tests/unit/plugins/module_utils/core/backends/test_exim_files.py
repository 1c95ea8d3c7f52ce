# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.exim_host import (
    AFTER,
    BEFORE,
    CONF,
    LOGIN,
    NASTY,
    PASSWD,
    SPLIT,
    TEMPLATE,
    TRANSPORT,
    carried,
    generated,
    installed,
    problems_of,
    service,
)

from ansible_collections.fleetmail.smtp.plugins.module_utils.core import marks
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends import exim_files, exim_generated
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.exim import Exim

# -- update-exim4.conf.conf, as a shell reads it ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("dc_a='one'\ndc_a='two'\n", {"dc_a": "two"}),
        ("dc_a=bare # why\ndc_b=\n", {"dc_a": "bare", "dc_b": ""}),
        ('export dc_a="b c"\n', {"dc_a": "b c"}),
        ("  dc_a='x'\n#dc_a='y'\n", {"dc_a": "x"}),
        ("dc_a='one\ntwo'\ndc_b=3", {"dc_a": "one\ntwo", "dc_b": "3"}),
        ("dc_a='never closed\ndc_b='x'\n", {"dc_a": "never closed\ndc_b="}),
        ("if true; then\ndc_a='x'\nfi\n", {"dc_a": "x"}),
        ("", {}),
    ],
)
def test_assignments_are_read_as_a_shell_does(text, values):
    assert exim_files.shell_values(text) == values


def test_a_quote_that_is_never_closed_takes_one_line_only():
    assert [entry.key for entry in exim_files.shell_entries("dc_a='x\ndc_b=y\n")] == ["dc_a", "dc_b"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("A = 1\nA = 2\n", {"A": "1"}),
        ("A = 1\nA == 2\n", {"A": "2"}),
        ("A=\n", {"A": ""}),
        ("A = one \\\n   two\\\n# not this\n  three\nB = x\n", {"A": "one twothree", "B": "x"}),
        ("hold_domains = *\n", {"hold_domains": "*"}),
        (".ifdef A\nB = 1\n.endif\n# C = 1\n", {"B": "1"}),
    ],
)
def test_macros_are_read_as_exim_does(text, values):
    assert exim_files.macro_values(text) == values


# -- our block among somebody else's lines ---------------------------------------------------------------------------


def test_lines_that_we_replace_are_muted_and_given_back():
    text = "dc_smarthost='old'\ndc_x='kept'\n"
    ours = exim_files.rewrite(text, "default", {"dc_smarthost": "new"}, exim_files.SHELL)
    assert ours == (
        "#fleetmail.smtp# dc_smarthost='old'\ndc_x='kept'\n"
        "# BEGIN fleetmail.smtp default\ndc_smarthost='new'\n# END fleetmail.smtp default\n"
    )
    assert exim_files.rewrite(ours, "default", {}, exim_files.SHELL) == text


def test_a_later_line_is_muted_too_and_once_only():
    wanted = {"dc_smarthost": "new"}
    text = exim_files.rewrite("dc_x='kept'\n", "default", wanted, exim_files.SHELL)
    muted = exim_files.rewrite(text + "dc_smarthost='mine'\n", "default", wanted, exim_files.SHELL)
    assert muted == text + "#fleetmail.smtp# dc_smarthost='mine'\n"
    assert exim_files.rewrite(muted + "dc_smarthost='mine'\n", "default", wanted, exim_files.SHELL) == muted
    assert exim_files.rewrite(muted, "default", {}, exim_files.SHELL) == "dc_x='kept'\ndc_smarthost='mine'\n"


def test_what_is_left_of_a_torn_block_goes():
    wanted = {"dc_smarthost": "new"}
    text = exim_files.rewrite("dc_x='kept'\n", "default", wanted, exim_files.SHELL)
    torn = text.replace("# END fleetmail.smtp default\n", "")
    assert exim_files.rewrite(torn, "default", wanted, exim_files.SHELL) == text


def test_several_lines_of_one_setting_stay_together():
    text = "A = one \\\n two \\\nthree\nB = 1\n"
    ours = exim_files.rewrite(text, "default", {"A": "x"}, exim_files.MACROS)
    assert exim_files.macro_values(ours) == {"A": "x", "B": "1"}
    assert exim_files.rewrite(ours, "default", {}, exim_files.MACROS) == text


KEYS = st.sampled_from(["A", "B", "hold_domains", "dc_smarthost", "Z9"])
LINE = st.one_of(
    st.builds("{} = {}".format, KEYS, st.text("abc '\"$", max_size=6)),
    st.builds("{}='{}'".format, KEYS, st.text("abc \n", max_size=6)),
    st.sampled_from(["", "# A = 1", "A = x \\", "  y", "fi", "A='", "é\u2028\x85"]),
)


@given(st.lists(LINE, max_size=12), st.booleans(), st.dictionaries(KEYS, st.just("v"), min_size=1), st.booleans())
@settings(max_examples=150, deadline=None)
def test_taking_us_out_gives_the_file_back_byte_for_byte(lines, ended, wanted, shell):
    how = exim_files.SHELL if shell else exim_files.MACROS
    text = "\n".join(lines) + ("\n" if ended else "")
    ours = exim_files.rewrite(text, "default", wanted, how)
    assert exim_files.rewrite(ours, "default", wanted, how) == ours
    assert exim_files.rewrite(ours, "default", {}, how) == text


# -- passwd.client ---------------------------------------------------------------------------------------------------


@given(
    NASTY.map(lambda text: text.replace("\t", "x")).filter(lambda text: carried(text, "username")),
    NASTY.filter(lambda text: carried(text, "password")),
    st.sampled_from(["", PASSWD, "old.example:a:b\n", "*:a:b", "^x.*$:u:p\n  more\n", '"::1":u:p\n']),
)
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_what_exim_finds(username, password, text):
    line = exim_files.credential_line("*", username, password)
    ours = exim_files.put_credentials(text, "default", line)
    assert exim_files.credentials(ours, "any.name.example") == (username, password)
    assert marks.drop(ours, "default") == text


@pytest.mark.parametrize(
    ("text", "host", "found"),
    [
        ("relay.example:u:p:w\n", "RELAY.example", ("u", "p:w")),
        ("a.example:u:p\n*.example:v:q\n", "b.example", ("v", "q")),
        ("^.*\\.example$:u:p\n", "b.example", ("u", "p")),
        ('"fd77::25":u:p\n', "fd77::25", ("u", "p")),
        ("# *:u:p\n\n", "x", None),
        ("^(:u:p\n*:v:q\n", "x", ("v", "q")),
        ("x u:p\n", "x", ("u", "p")),
    ],
)
def test_the_first_line_that_matches_counts(text, host, found):
    assert exim_files.credentials(text, host) == found


def test_a_line_before_ours_does_not_win():
    ours = exim_files.put_credentials("", "default", "*:u:p\n")
    again = exim_files.put_credentials("*:by:hand\n" + ours, "default", "*:u:p\n")
    assert exim_files.credentials(again, "x") == ("u", "p")
    assert exim_files.put_credentials(again, "default", "*:u:p\n") == again


# -- the transport, the route, the generated file --------------------------------------------------------------------


def test_our_options_go_right_behind_the_driver():
    ours = exim_files.put_in_transport(TEMPLATE, "default", "  tls_sni = x\n")
    assert ours is not None
    assert "  driver = smtp\n# BEGIN fleetmail.smtp default\n  tls_sni = x\n# END" in ours
    assert exim_files.put_in_transport(ours, "default", "  tls_sni = x\n") == ours
    assert marks.drop(ours, "default") == TEMPLATE


@pytest.mark.parametrize("template", ["", BEFORE + AFTER, TEMPLATE.replace("driver = smtp\n", "driver = lmtp\n")])
def test_a_template_without_the_transport_is_left_alone(template):
    assert exim_files.put_in_transport(template, "default", "  x = 1\n") is None
    host = installed()
    host.put(exim_files.TEMPLATE, template)
    told = [option for option, _rest in problems_of(service(**LOGIN), host)]
    assert told == (["backend_options.edit_template"] if template else [])


@given(st.ip_addresses().map(str) | st.sampled_from(["relay.example.com", "x_1.example."]), st.integers(1, 65535))
def test_a_route_is_read_back(host, port):
    assert exim_files.split_route(f"* {exim_files.smarthost(host, port)} byname", 25) == (host, port)


@pytest.mark.parametrize(
    ("route", "port", "found"),
    [
        ("* relay.example byname", 25, ("relay.example", 25)),
        ("* relay.example byname", 465, ("relay.example", 465)),
        ("* a::25:b::25 byname", 25, ("* a::25:b::25 byname", 25)),
        ("*  byname", 25, ("*  byname", 25)),
    ],
)
def test_what_is_not_one_host_is_shown_as_it_stands(route, port, found):
    assert exim_files.split_route(route, port) == found


@pytest.mark.parametrize("conf", [CONF, SPLIT])
def test_the_generated_file_is_compared_with_its_sources(conf):
    host, split = installed(conf), conf is SPLIT
    host.put(exim_files.ETC + "/conf.d/main/01_x", "UPEX4CmacrosUPEX4C = 1\n# a comment\n")
    host.put(exim_files.ETC + "/conf.d/main/ignored.dpkg-old", "bad = 1\n")
    whole = exim_generated.joined(host, split)
    assert exim_generated.fault(host, split) == "(absent)"
    host.put(exim_files.GENERATED, generated(whole))
    assert exim_generated.fault(host, split) == ""
    host.put(
        exim_files.GENERATED, generated(whole).replace("X=1", "X=2")
    )  # what the answers make is judged by its effect
    assert exim_generated.fault(host, split) == ""
    for edited in (generated(whole) + "message_size_limit = 1\n", generated(whole).replace("  driver = smtp\n", "")):
        host.put(exim_files.GENERATED, edited)
        assert exim_generated.fault(host, split) == "(stale or edited)"


def test_a_file_with_the_ending_rul_stands_for_its_namesake():
    host = installed(SPLIT)
    host.put(exim_files.TRANSPORT_FILE + ".rul", TRANSPORT + "  tls_sni = mine\n")
    assert "tls_sni = mine" in exim_generated.joined(host, True)
    assert TRANSPORT + "\n" not in exim_generated.joined(host, True)
    assert Exim(host)._wanted_options(service()) == {}  # the transport sets it by itself
