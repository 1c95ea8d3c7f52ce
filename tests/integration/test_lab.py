# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The laboratory's hosts: real software in them, nothing of theirs outside, and nothing left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lab import layers, sweep
from lab.authority import Authority
from lab.layers import Recipe
from lab.network import Network
from lab.relay import Listener, Relay, listeners
from lab.relay_postfix import POSTFIX_RELAY_NAME, PostfixRelay
from lab.tree import HOME, RELAY6_ADDRESS, RELAY6_NAME, RELAY_ADDRESS, RELAY_NAME, CommandFailed, Tree

pytestmark = pytest.mark.skipif(bool(layers.why_unavailable()), reason=layers.why_unavailable())

LAB = Path(layers.__file__).parent
PASSWORD = "pä ss'\"#$\\`{}:;,^ end"
MAIL = b"Subject: proof\n\nbody\n.dot\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def processes_in(pid_namespace: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "ns/pid") == pid_namespace:
                found.append(entry.name)
        except OSError:
            continue
    return found


def mounts_under(place: Path) -> list[str]:
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(place) in line]


# -- hosts


def test_a_host_starts_in_less_than_half_a_second() -> None:
    layers.build_layer("postfix")
    took = []
    for _rest in range(3):
        began = time.monotonic()
        with Tree("postfix"):
            took.append(time.monotonic() - began)
    assert min(took) < 0.5


def test_a_host_is_a_host_of_its_own() -> None:
    with Tree("bare", name="alone") as host:
        assert host.output(["hostname", "--fqdn"]) == "alone.example.test"
        assert host.output(["cat", "/proc/1/comm"]) != Path("/proc/1/comm").read_text().strip()
        assert host.output(["ls", "/sys/class/net"]).split() == ["eth0", "lo"]
        assert str(LAB) not in host.output(["cat", "/proc/mounts"])
        assert host.run(["test", "-e", str(LAB)], check=False).returncode == 1
        who = host.output(["sh", "-c", "id -un; id -Gn; echo $HOME"], user="user")
        assert who.split() == ["user", "user", "/home/user"]


def test_what_a_host_writes_is_gone_with_it() -> None:
    with Tree("bare") as host:
        host.write("/etc/left", b"\x00over", mode=0o600)
        assert host.output(["stat", "--format=%a %U %s", "/etc/left"]) == "600 root 5"
        assert (host.path / "etc/left").read_bytes() == host.read("/etc/left") == b"\x00over"
    with Tree("bare") as host:
        assert not host.exists("/etc/left")


def test_links_of_a_host_never_lead_out_of_it() -> None:
    with Tree("bare") as host:
        host.run(["ln", "-s", "/etc/machine-id-of-lab", "/etc/absolute"])
        host.run(["ln", "-s", "../../../../etc/machine-id-of-lab", "/etc/relative"])
        host.write("/etc/absolute", "inside")
        assert host.read("/etc/relative") == b"inside"
        assert not Path("/etc/machine-id-of-lab").exists()


def test_a_failing_command_says_what_it_said() -> None:
    with Tree("bare") as host, pytest.raises(CommandFailed, match="no such day"):
        host.run(["sh", "-c", "echo no such day >&2; exit 4"])


def test_a_small_host_is_full_for_real() -> None:
    with Tree("bare", size="4m") as host:
        with pytest.raises(CommandFailed, match="No space left"):
            host.run(["dd", "if=/dev/zero", "of=/opt/filler", "bs=1M", "count=8"])
        with pytest.raises(OSError, match="No space left"):
            host.write("/opt/one-more", b"x" * 4096)


def test_hosts_of_one_network_reach_each_other_by_name() -> None:
    answer = ["python3", "-c", "import socket; s = socket.create_server(('', 2000)); s.accept()[0].sendall(b'hello')"]
    ask = "import socket; print(socket.create_connection(('second.example.test', 2000), 5).recv(9).decode())"
    with (
        Network() as network,
        Tree(name="first", network=network) as first,
        Tree(name="second", network=network) as second,
    ):
        server = subprocess.Popen(second.command(answer))
        second.run(["sh", "-c", "until grep -q :07D0 /proc/net/tcp; do sleep 0.01; done"], timeout=10)
        assert first.output(["python3", "-c", ask]) == "hello"
        assert server.wait(5) == 0


def test_a_name_added_later_resolves_in_files_and_dns() -> None:
    with Tree("bare") as host:
        with pytest.raises(CommandFailed):
            host.run(["getent", "ahostsv4", "late.example.test"])
        host.add_name("late.example.test", "10.77.0.99")
        assert "10.77.0.99" in host.output(["getent", "ahostsv4", "late.example.test"])
        host.write("/etc/hosts", "127.0.0.1 localhost\n")  # dnsmasq still knows, until it is told to read again
        assert "10.77.0.99" in host.output(["getent", "ahostsv4", "late.example.test"])


# -- nothing is left


def test_nothing_is_left_after_a_host() -> None:
    with pytest.raises(ZeroDivisionError), Tree("postfix") as host:  # noqa: PT012 - the context is what is tested
        host.start("postfix")
        namespace, place = os.readlink(f"/proc/{host.pid}/ns/pid"), host.path.parent
        assert len(processes_in(namespace)) > 5
        assert len(mounts_under(place)) == 2
        raise ZeroDivisionError
    assert processes_in(namespace) == []
    assert mounts_under(place) == []
    assert not place.exists()
    assert not place.with_suffix(".lock").exists()


KILLED = """
    import time
    from lab.tree import Tree
    with Tree("postfix", name="orphan") as host:
        host.start("postfix")
        print(host.pid, host.path, flush=True)
        time.sleep(600)
"""


def test_a_killed_owner_takes_its_processes_along_and_the_sweep_the_rest() -> None:
    layers.build_layer("postfix")
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED)], stdout=subprocess.PIPE, cwd=LAB.parent, text=True
    )
    with Tree("bare") as living:
        assert owner.stdout
        pid, root = owner.stdout.readline().split()
        namespace, place = os.readlink(f"/proc/{pid}/ns/pid"), Path(root).parent
        sweep.sweep()
        assert mounts_under(place), "the sweep took a living tree"
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        owner.stdout.close()
        end = time.monotonic() + 10
        while processes_in(namespace):
            assert time.monotonic() < end, "processes outlived their owner"
            time.sleep(0.02)
        assert place.name in sweep.sweep()
        assert mounts_under(place) == []
        assert not place.exists()
        assert living.output(["echo", "alive"]) == "alive"


# -- layers


@pytest.fixture
def scratch_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own that shares the bookworm base."""
    base = layers.build_layer("bare")[0]
    trees = tmp_path / "cache/trees/bookworm"
    trees.mkdir(parents=True)
    (trees / base.name).symlink_to(base)
    monkeypatch.setenv("FLEETMAIL_CACHE", str(tmp_path / "cache"))
    return trees


def test_a_layer_that_fails_to_build_is_never_taken_as_good(
    scratch_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(layers.RECIPES, "tried", Recipe(script="touch /half; echo out of luck >&2; exit 3"))
    with pytest.raises(layers.BuildFailed, match="out of luck"):
        layers.build_layer("tried")
    assert not [path for path in scratch_cache.iterdir() if path.is_dir() and path.name.startswith("tried")]
    monkeypatch.setitem(layers.RECIPES, "tried", Recipe(script="touch /whole"))
    with Tree("tried") as host:
        assert host.exists("/whole")
        assert not host.exists("/half")
        assert not host.exists("/usr/sbin/policy-rc.d")


def test_a_changed_recipe_builds_anew_and_two_runs_build_once(
    scratch_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(layers.RECIPES, "tried", Recipe(script="echo first build; sleep 0.2"))
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(layers.build_layer, ["tried", "tried"])
    assert one == two
    assert one[0].with_name(one[0].name + ".log").read_text().count("first build") == 1
    monkeypatch.setitem(layers.RECIPES, "tried", Recipe(script="echo second build"))
    assert layers.build_layer("tried")[0] != one[0]


def test_a_bare_host_can_install_mail_software_without_a_network() -> None:
    with Tree("bare-repository") as host:
        host.run(["apt-get", "-q", "update"])
        host.run(["apt-get", "-q", "-y", "install", "msmtp"], env={"DEBIAN_FRONTEND": "noninteractive"})
        assert host.output(["msmtp", "--version"]).startswith("msmtp version")


# -- real clients and real relays


def configure_msmtp(host: Tree, authority: Authority, port: int, security: str) -> None:
    host.write("/etc/relay-ca.pem", authority.ca_file.read_bytes())
    host.write("/opt/password", PASSWORD + "\n", mode=0o600)
    starttls = "on" if security == "starttls" else "off"
    host.write(
        f"{HOME}/.msmtprc",
        f"account default\nhost {RELAY_NAME}\nport {port}\nfrom host@example.test\ntimeout 10\n"
        f"tls on\ntls_starttls {starttls}\ntls_trust_file /etc/relay-ca.pem\n"
        "auth on\nuser fleet\npasswordeval cat /opt/password\n",
        mode=0o600,
    )


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_msmtp_to_the_embedded_relay(authority: Authority, security: str) -> None:
    relay = Relay(listeners(authority.good(RELAY_NAME)), users={"fleet": PASSWORD}, auth_required=True)
    with Tree("msmtp") as host, relay.start(in_net_of=host):
        configure_msmtp(host, authority, relay.port(security), security)
        host.run(["msmtp", "to@example.org"], input=MAIL)
        mail = relay.wait_for_message()
        assert (mail.sender, mail.recipients, mail.auth_user) == ("host@example.test", ["to@example.org"], b"fleet")
        assert mail.email["Subject"] == "proof"
        assert mail.data.endswith(b"body\r\n.dot\r\n")
        assert mail.tls
        assert mail.tls["version"] == "TLSv1.3"
        assert relay.sessions()[0].auths[0].secret == PASSWORD.encode()


@pytest.mark.parametrize("flaw", ["wrong_name", "expired", "not_yet_valid", "from_unknown_ca"])
def test_no_credential_for_a_bad_certificate(authority: Authority, flaw: str) -> None:
    names = () if flaw == "wrong_name" else (RELAY_NAME,)
    relay = Relay(listeners(getattr(authority, flaw)(*names)), users={"fleet": PASSWORD})
    with Tree("msmtp") as host, relay.start(in_net_of=host):
        for security in ("starttls", "tls"):
            configure_msmtp(host, authority, relay.port(security), security)
            assert host.run(["msmtp", "to@example.org"], input=MAIL, check=False).returncode != 0
        relay.wait_for(lambda: len(relay.sessions()) == 2)
        assert not any(session.saw_credentials or session.messages for session in relay.sessions())


def configure_postfix(host: Tree, authority: Authority, relay: str, security: str) -> None:
    port = {"starttls": 587, "tls": 465}[security]
    host.write("/etc/relay-ca.pem", authority.ca_file.read_bytes())
    host.write("/etc/postfix/password", f"[{relay}]:{port} fleet:{PASSWORD}\n", mode=0o600)
    host.run(["postmap", "/etc/postfix/password"])
    settings = [
        *(f"relayhost=[{relay}]:{port}", "smtp_tls_security_level=secure", "smtp_tls_CAfile=/etc/relay-ca.pem"),
        *("smtp_sasl_auth_enable=yes", "smtp_sasl_password_maps=hash:/etc/postfix/password"),
        *("smtp_sasl_tls_security_options=noanonymous", f"smtp_tls_wrappermode={'yes' if port == 465 else 'no'}"),
    ]
    host.run(["postconf", "-e", *settings])
    host.let_cool()
    host.start("postfix")


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_postfix_to_a_relay_of_postfix_and_dovecot(authority: Authority, security: str) -> None:
    certificate, users = authority.good(POSTFIX_RELAY_NAME), {"fleet": PASSWORD}
    with Tree("postfix") as host, PostfixRelay(certificate, host.network, users, auth_required=True) as relay:
        configure_postfix(host, authority, relay.hostname, security)
        host.run(["sendmail", "one@example.org", "two@example.com"], input=MAIL, user="user")
        mail = relay.wait_for_message()
        assert (mail.sender, mail.auth_user) == ("user@client.example.test", b"fleet")
        assert sorted(mail.recipients) == ["one@example.org", "two@example.com"]
        assert mail.tls
        assert mail.email["Subject"] == "proof"
        assert "status=sent" in host.wait_for_log("status=sent.*")[0]
        assert f"[{relay.address}]" in host.log()


def test_the_postfix_relay_refuses_who_does_not_know_the_password(authority: Authority) -> None:
    certificate, users = authority.good(POSTFIX_RELAY_NAME), {"fleet": "another"}
    with Tree("postfix") as host, PostfixRelay(certificate, host.network, users, auth_required=True) as relay:
        configure_postfix(host, authority, relay.hostname, "starttls")
        host.run(["sendmail", "to@example.org"], input=MAIL)
        host.wait_for_log("status=deferred.*authentication failed")
        assert relay.messages() == []
        relay.add_user("fleet", PASSWORD)
        in_queue = "find /var/spool/postfix/deferred -type f | grep -q ."  # logged first, and only then moved there
        host.run(["sh", "-c", f"until {in_queue}; do sleep 0.02; done; postqueue -f"])
        assert relay.wait_for_message().auth_user == b"fleet"
        with pytest.raises(ValueError, match="control characters"):
            relay.add_user("fleet", "tab\tin it")


def test_exim_to_the_embedded_relay(authority: Authority) -> None:
    """Exim adds AUTH= to MAIL FROM, which aiosmtpd alone answers with 555."""
    relay = Relay(listeners(authority.good(RELAY_NAME)), users={"fleet": "secret"}, auth_required=True)
    with Tree("exim") as host, relay.start(in_net_of=host):
        host.write("/etc/relay-ca.pem", authority.ca_file.read_bytes())
        settings = host.read("/etc/exim4/update-exim4.conf.conf").decode()
        settings = settings.replace("configtype='local'", "configtype='satellite'")
        settings = settings.replace("dc_smarthost=''", f"dc_smarthost='{RELAY_NAME}::587'")
        host.write("/etc/exim4/update-exim4.conf.conf", settings)
        prefix = "REMOTE_SMTP_SMARTHOST_"
        host.write(
            "/etc/exim4/exim4.conf.localmacros",
            f"{prefix}HOSTS_REQUIRE_TLS = *\n{prefix}TLS_VERIFY_HOSTS = *\n"
            f"{prefix}TLS_VERIFY_CERTIFICATES = /etc/relay-ca.pem\n",
        )
        host.write("/etc/exim4/passwd.client", f"{RELAY_NAME}:fleet:secret\n", mode=0o640)
        host.run(["chgrp", "Debian-exim", "/etc/exim4/passwd.client"])
        host.start("exim")
        host.run(["sendmail", "to@example.org"], input=MAIL, user="user")
        assert relay.wait_for_message().auth_user == b"fleet"
        host.wait_for_log("Completed")
        assert any(" AUTH=" in line for line in relay.sessions()[0].commands), relay.sessions()[0].commands


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_to_a_relay_in_the_host_itself_and_over_ipv6(authority: Authority, mechanism: str) -> None:
    files = authority.good("localhost", RELAY6_NAME)
    inside = Listener("127.0.0.1", 587, "starttls", str(files.chain), str(files.key))
    beside = Listener(RELAY6_ADDRESS, 587, "starttls", str(files.chain), str(files.key))
    with Tree("swaks") as host:
        for name, family, listener in (("localhost", "-4", inside), (RELAY6_NAME, "-6", beside)):
            with Relay([listener], users={"fleet": PASSWORD}).start(in_net_of=host) as relay:
                swaks = ["swaks", family, "--server", name, "--port", "587", "--tls", "--to", "to@example.org"]
                host.run([*swaks, "--auth", mechanism, "--auth-user", "fleet", "--auth-password", PASSWORD])
                assert relay.wait_for_message().auth_user == b"fleet"
        with pytest.raises(ValueError, match="loopback"):
            Relay([inside, beside]).start(in_net_of=host)
        assert host.address != RELAY_ADDRESS


# -- Ansible


def ansible(inventory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ANSIBLE_CONNECTION_PLUGINS": str(LAB / "plugins/connection")}
    command = [Path(sys.executable).with_name("ansible"), "--inventory", inventory, "all", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_ansible_works_in_hosts(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory"
    with Network() as network, Tree(name="one", network=network) as one, Tree(name="two", network=network) as two:
        inventory.write_text(f"{one.inventory_line()}\n{two.inventory_line()}\n")
        content = "bytes and 'quotes' end"
        copied = ansible(inventory, "-m", "copy", "-a", f'content="{content}" dest="/opt/a file" mode=0600')
        assert copied.returncode == 0, copied.stdout + copied.stderr
        assert one.read("/opt/a file") == two.read("/opt/a file") == content.encode()
        fetched = ansible(inventory, "-m", "fetch", "-a", f"src=/etc/hostname dest={tmp_path}/fetched/")
        assert fetched.returncode == 0, fetched.stdout + fetched.stderr
        assert (tmp_path / "fetched/two/etc/hostname").read_text() == "two\n"
    refused = ansible(inventory, "-m", "ping")
    assert refused.returncode == 4
    assert "does not run" in refused.stdout
