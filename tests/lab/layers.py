# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root file systems of the lab: one debootstrap base a suite, one overlay layer a role, cached outside the checkout."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

DOMAIN = "example.test"
BUILD_TIMEOUT = 900
BASE_PACKAGES = ("ca-certificates", "python3", "python3-apt", "procps", "netbase", "rsyslog", "dnsmasq-base")


class LabUnavailable(Exception):
    """This machine cannot hold the lab; the text says why."""


class BuildFailed(Exception):
    """A layer could not be built; the text ends with the build's own last words."""


@dataclass(frozen=True)
class Recipe:
    """What a role layer adds to the base, or to another role. Any change here builds the layer anew."""

    packages: tuple[str, ...] = ()
    preseed: tuple[str, ...] = ()
    script: str = ""
    on: str = field(default="", repr=False)  # its name is in the name of the layer already


_POSTFIX_SEED = (
    "postfix postfix/main_mailer_type select Internet Site",
    f"postfix postfix/mailname string client.{DOMAIN}",
)
_EXIM_SEED = (
    "exim4-config exim4/dc_eximconfig_configtype select local delivery only; not on a network",
    f"exim4-config exim4/mailname string client.{DOMAIN}",
)
_MSMTP_SEED = ("msmtp msmtp/apparmor boolean false",)

_REPOSITORY = """
mkdir -p /srv/packages/partial
cd /srv/packages
for packages in 'postfix libsasl2-modules' exim4-daemon-light 'msmtp msmtp-mta' bsd-mailx; do
    apt-get -q -y -o Dir::Cache::archives=/srv/packages --download-only install $packages
done
apt-ftparchive packages . > Packages
rm -r /var/lib/apt/lists/*
echo 'deb [trusted=yes] file:/srv/packages ./' > /etc/apt/sources.list
apt-get -q update
"""

_FLEET = """
useradd --create-home --shell /bin/bash ops
echo 'ops ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ops
install -d -m 700 -o ops -g ops /home/ops/.ssh
cat > /etc/systemd/system/lab-names.service <<'EOF'
[Service]
ExecStart=/usr/sbin/dnsmasq --keep-in-foreground --user=root --conf-file=/dev/null --pid-file=/run/dnsmasq.pid \
  --listen-address=127.0.0.1 --bind-interfaces --no-resolv --no-poll --address=/#/
[Install]
WantedBy=multi-user.target
EOF
systemctl enable lab-names.service ssh.service
systemctl mask getty.target console-getty.service systemd-networkd-wait-online.service apt-daily.timer \
  apt-daily-upgrade.timer e2scrub_all.timer dpkg-db-backup.timer fstrim.timer exim4-base.timer man-db.timer
"""

RECIPES: dict[str, Recipe] = {
    "bare": Recipe(),
    "bare-repository": Recipe(("apt-utils",), script=_REPOSITORY),  # can install the mail software, without a network
    "exim": Recipe(("exim4-daemon-light",), _EXIM_SEED),
    "fleet": Recipe(  # a whole machine, to be reached by ssh as an ordinary user: lab.machine
        ("systemd", "systemd-sysv", "openssh-server", "sudo", "python3-requests"), script=_FLEET
    ),
    "fleet-exim": Recipe(("exim4-daemon-light",), _EXIM_SEED, on="fleet"),
    "fleet-msmtp": Recipe(("msmtp", "msmtp-mta"), _MSMTP_SEED, on="fleet"),
    "fleet-postfix": Recipe(("postfix", "libsasl2-modules", "msmtp"), _POSTFIX_SEED + _MSMTP_SEED, on="fleet"),
    "fleet-pull": Recipe(  # its own control node, with what Debian 13 has
        ("postfix", "libsasl2-modules", "git", "ansible-core"), _POSTFIX_SEED, on="fleet"
    ),
    "keeper": Recipe(("systemd", "cron", "python3-requests", "msmtp"), _MSMTP_SEED),
    "msmtp": Recipe(("msmtp", "msmtp-mta"), _MSMTP_SEED),
    "postfix": Recipe(("postfix", "libsasl2-modules"), _POSTFIX_SEED),
    "postfix-maps": Recipe(  # with every type of lookup table that people use
        ("postfix", "libsasl2-modules", "postfix-cdb", "postfix-lmdb", "postfix-pcre"), _POSTFIX_SEED
    ),
    "postfix-msmtp": Recipe(("postfix", "libsasl2-modules", "msmtp"), _POSTFIX_SEED + _MSMTP_SEED),
    "postfix-tokens": Recipe(  # all that a host with OAuth and the keeper needs, of every grant
        ("postfix", "libsasl2-modules", "msmtp", "python3-requests", "python3-jwt", "python3-cryptography", "cron"),
        _POSTFIX_SEED + _MSMTP_SEED,
    ),
    "relay": Recipe(("postfix", "dovecot-core"), _POSTFIX_SEED),
    "swaks": Recipe(("swaks", "libnet-ssleay-perl", "libio-socket-inet6-perl")),
}

_BASE_SCRIPT = f"""
echo client.{DOMAIN} > /etc/mailname
echo force-unsafe-io > /etc/dpkg/dpkg.cfg.d/lab
apt-get -q update
apt-get -q -y --no-install-recommends install {" ".join(BASE_PACKAGES)}
sed -i /imklog/d /etc/rsyslog.conf  # the kernel's log is the machine's, not the tree's
useradd --create-home --shell /bin/sh user
"""
_INSTALL = """install() { apt-get -q -y --no-install-recommends install PACKAGES; }
install || { apt-get -q update; install; }
"""


def cache_root() -> Path:
    """The folder outside the checkout for what is expensive: FLEETMAIL_CACHE, or one in the user's cache folder."""
    given = os.environ.get("FLEETMAIL_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fleetmail-smtp"


def why_unavailable() -> str:
    """Why trees cannot be used here, in one sentence; empty when they can."""
    if os.geteuid() != 0:
        return "the lab needs root (overlay mounts and namespaces)"
    missing = [
        tool for tool in ("unshare", "nsenter", "mount", "ip", "chroot", "apt-get", "dpkg") if not shutil.which(tool)
    ]
    if missing:
        return "the lab needs a Debian machine; missing: " + ", ".join(missing)
    if "overlay" not in Path("/proc/filesystems").read_text():
        subprocess.run(["modprobe", "overlay"], capture_output=True, check=False)
        if "overlay" not in Path("/proc/filesystems").read_text():
            return "the lab needs overlayfs in the kernel"
    return ""


def build_layer(role: str, suite: str = "bookworm") -> list[Path]:
    """Build what is missing of a role and what it stands on.

    Returns the layers as overlayfs wants them, uppermost first.
    Raises LabUnavailable on a machine that cannot hold the lab, BuildFailed when a build step fails.
    """
    reason = why_unavailable()
    if reason:
        raise LabUnavailable(reason)
    recipe = RECIPES[role]
    below = build_layer(recipe.on, suite) if recipe.on else [_layer_path(suite, "base", _BASE_SCRIPT)]
    if not below[-1].is_dir():
        with _locked(suite):
            _build_base(below[-1], suite)
    if recipe == Recipe():
        return below
    layer = _layer_path(suite, role, below[0].name + _INSTALL + repr(recipe))
    if not layer.is_dir():
        with _locked(suite):
            _build_role(layer, below, recipe)
    return [layer, *below]


def _layer_path(suite: str, name: str, recipe: str) -> Path:
    key = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    return cache_root() / "trees" / suite / f"{name}-{key}"


@contextlib.contextmanager
def _locked(suite: str) -> Iterator[None]:
    """One build a suite at a time: two test runs would fetch and unpack the same packages."""
    folder = cache_root() / "trees" / suite
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "build.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_base(base: Path, suite: str) -> None:
    if not base.is_dir():  # another run was faster
        with _partial(base) as root:
            _bootstrap(root, suite)


def _build_role(layer: Path, below: list[Path], recipe: Recipe) -> None:
    if not layer.is_dir():
        with _partial(layer) as upper:
            _install(upper, below, recipe)


@contextlib.contextmanager
def _partial(layer: Path) -> Iterator[Path]:
    """A folder that gets the layer's name only after the block ended well: a half-built one is never taken as good."""
    for stale in layer.parent.glob(layer.name + ".partial-*"):
        shutil.rmtree(stale)
    partial = Path(tempfile.mkdtemp(prefix=layer.name + ".partial-", dir=layer.parent))
    try:
        partial.chmod(0o755)
        yield partial
        partial.rename(layer)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _bootstrap(root: Path, suite: str) -> None:
    if not shutil.which("debootstrap"):
        _run(["apt-get", "-q", "update"], root)
        _run(["apt-get", "-q", "-y", "--no-install-recommends", "install", "debootstrap"], root)
    sources = _machine_sources()
    archives = _archives(root.parent)
    command = ["debootstrap", "--variant=minbase", f"--cache-dir={archives}", suite, str(root), sources["Debian"]]
    _run(_isolated(command), root)
    _write(root / "etc/apt/sources.list", _sources_list(suite, sources))
    _write(root / "etc/apt/apt.conf.d/99machine", _apt_settings())
    for name in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
        if Path("/", name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path("/", name), root / name)
    _in_root(root, root, _BASE_SCRIPT, mounts="")


def _install(upper: Path, below: list[Path], recipe: Recipe) -> None:
    """Run the recipe over what is below; what it writes stays in upper."""
    with tempfile.TemporaryDirectory(prefix="build-", dir=upper.parent) as scratch:
        root, work = Path(scratch, "root"), Path(scratch, "work")
        root.mkdir()
        work.mkdir()
        lower = ":".join(map(str, below))
        overlay = f"mount -t overlay overlay -o lowerdir={lower},upperdir={upper},workdir={work} {root}"
        seed = "debconf-set-selections <<'EOF'\n" + "\n".join(recipe.preseed) + "\nEOF\n" if recipe.preseed else ""
        _in_root(
            root, upper, seed + _INSTALL.replace("PACKAGES", " ".join(recipe.packages)) + recipe.script, mounts=overlay
        )


def _in_root(root: Path, layer: Path, script: str, mounts: str) -> None:
    """Run a shell script in a root file system, with the machine's network and no daemon started by a package."""
    policy, archives = root / "usr/sbin/policy-rc.d", _archives(layer.parent)
    archives.joinpath("partial").mkdir(exist_ok=True)
    outer = f"""set -e
{mounts}
hostname client
mount -t proc proc {root}/proc
mkdir -p {root}/var/cache/apt/archives
mount --bind {archives} {root}/var/cache/apt/archives
printf '#!/bin/sh\\nexit 101\\n' > {policy}; chmod 755 {policy}
printf '127.0.0.1 localhost\\n127.0.1.1 client.{DOMAIN} client\\n' > {root}/etc/hosts
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \\
    chroot {root} /bin/sh -ec "$SCRIPT"
rm {policy}
"""
    _run(_isolated(["/bin/sh", "-c", outer]), layer, {**os.environ, "SCRIPT": script})


def _isolated(command: list[str]) -> list[str]:
    """The command in namespaces of its own: its mounts and processes end with it, also when it is killed."""
    namespaces = ["--mount", "--uts", "--pid", "--fork", "--kill-child=KILL", "--propagation=private"]
    return ["nice", "unshare", *namespaces, *command]


def _run(command: list[str], layer: Path, env: dict[str, str] | None = None) -> None:
    log = layer.with_name(layer.name.split(".partial-")[0] + ".log")
    with open(log, "ab") as output:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, timeout=BUILD_TIMEOUT, check=False
        )
    if done.returncode:
        tail = log.read_text(errors="replace")[-2000:]
        raise BuildFailed(f"{command[0]} ended with {done.returncode} while building {layer.name}, see {log}:\n{tail}")


def _archives(folder: Path) -> Path:
    path = folder / "archives"
    path.mkdir(exist_ok=True)
    return path


def _machine_sources() -> dict[str, str]:
    """Label -> address of the Debian archives that this machine's own apt uses."""
    form = "$(LABEL)|$(REPO_URI)|$(CREATED_BY)"
    command = ["apt-get", "indextargets", "--format", form]
    if "|Packages" not in subprocess.run(command, capture_output=True, text=True, check=True).stdout:
        subprocess.run(["apt-get", "-q", "update"], capture_output=True, check=True)
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {line.split("|")[0]: line.split("|")[1] for line in lines if line.endswith("|Packages")}
    if "Debian" not in found:
        raise LabUnavailable("the lab takes its mirror from this machine's apt sources, and none of them is Debian's")
    return found


def _sources_list(suite: str, sources: dict[str, str]) -> str:
    lines = [f"deb {sources['Debian']} {suite} main"]
    if suite != "sid":
        lines.append(f"deb {sources['Debian']} {suite}-updates main")
        if "Debian-Security" in sources:
            lines.append(f"deb {sources['Debian-Security']} {suite}-security main")
    return "\n".join(lines) + "\n"


def _apt_settings() -> str:
    """The machine's own ways of reaching its mirror (proxies, retries, date checks), without its hooks."""
    dump = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True).stdout
    wanted = ("Acquire::http", "Acquire::https", "Acquire::Retries", "Acquire::Check-")
    kept = [line for line in dump.splitlines() if line.startswith(wanted)]
    return "\n".join([*kept, 'Acquire::Languages "none";', 'Acquire::GzipIndexes "true";']) + "\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
