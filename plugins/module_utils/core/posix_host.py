# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The Host port on the machine itself, or on a tree below ``root``."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence

from .errors import HostError
from .host import Completed, LogMark, Snapshot

SEARCH = ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin")
MAIL_LOGS = ("/var/log/mail.log", "/var/log/maillog", "/var/log/syslog", "/var/log/messages")
LOG_LIMIT = 1 << 20
# every Postfix program waits until main.cf is two seconds old, lest it reads a half-written one; a rename is never that
SETTLED = 3
MAX_LINKS = 40  # as the kernel's own limit (path_resolution(7))


class PosixHost:
    """See ``port.Host`` for what each method does."""

    def __init__(self, root: str = "/") -> None:
        self.root = os.path.realpath(root)
        self._names: dict[str, list[tuple[str, int]]] = {}

    @property
    def live(self) -> bool:
        return self.root == "/"

    # -- reading ---------------------------------------------------------------------------------------------------

    def read(self, path: str) -> Snapshot | None:
        try:
            with open(self._real(path), "rb", opener=_without_waiting) as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise HostError(path, "is not a regular file", "it may have been meant to be one")
                content = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _host_error(path, "cannot be read", error) from None
        owner = self._name("passwd", found.st_uid)
        return Snapshot(content, stat.S_IMODE(found.st_mode), owner, self._name("group", found.st_gid))

    def exists(self, path: str) -> bool:
        return os.path.exists(self._real(path))

    def names_in(self, directory: str) -> list[str]:
        try:
            return sorted(os.listdir(self._real(directory)))
        except OSError:
            return []

    def inode(self, path: str) -> int | None:
        try:
            return os.stat(self._real(path)).st_ino
        except OSError:
            return None

    def has_account(self, owner: str = "", group: str = "") -> bool:
        sought = [("passwd", owner), ("group", group)]
        return all(self._number(kind, name) is not None for kind, name in sought if name)

    def which(self, program: str) -> str | None:
        for directory in SEARCH:
            path = f"{directory}/{program}"
            if os.access(self._real(path), os.X_OK):
                return path
        return None

    # -- writing ---------------------------------------------------------------------------------------------------

    def make_directory(self, path: str, mode: int, owner: str, group: str) -> bool:
        if self.exists(path):
            return False
        parent = os.path.dirname(path)
        if parent != path:
            self.make_directory(parent, 0o755, "root", "root")
        with self._told(path, "cannot be made"):
            real = self._real(path)
            os.mkdir(real, 0o700)
            os.chown(real, *self._ids(owner, group))
            os.chmod(real, mode)
        return True

    def own_directory(self, path: str, repair: bool = True) -> bool:
        with self._told(path, "cannot be used"):
            if not self.exists(path):
                return repair and self.make_directory(path, 0o700, str(os.geteuid()), str(os.getegid()))
            found = os.stat(self._real(path))
            if not stat.S_ISDIR(found.st_mode):
                raise HostError(path, "is not a directory", "move it away, or choose another path")
            if found.st_uid != os.geteuid():
                owner = self._name("passwd", found.st_uid)
                raise HostError(path, f"belongs to {owner}, not to who runs this", "become that user, or give it away")
            wide = bool(stat.S_IMODE(found.st_mode) & 0o077)
            if wide and repair:
                os.chmod(self._real(path), 0o700)
            return wide

    def stage(self, path: str, content: bytes, mode: int, owner: str, group: str) -> str:
        staged = self.staged_name(path)
        with self._told(path, "cannot be written"):
            self._write_new(self._real(staged), self._real(path), content, (mode, owner, group))
        return staged

    def _write_new(self, real: str, target: str, content: bytes, allowed: tuple[int, str, str]) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(real)
        descriptor = os.open(real, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fchown(descriptor, *self._ids(*allowed[1:]))
                os.fchmod(descriptor, allowed[0])
                self.label(real, target)
                os.utime(descriptor, (time.time() - SETTLED,) * 2)
                os.fsync(descriptor)
        except BaseException:
            os.unlink(real)
            raise

    def refill(self, staged: str, content: bytes) -> None:
        with self._told(staged, "cannot be written"):
            descriptor = os.open(self._real(staged), os.O_WRONLY | os.O_NOFOLLOW)
            with open(descriptor, "wb") as file:
                file.write(content)
                file.truncate()
                file.flush()
                os.fsync(descriptor)

    def replace(self, path: str, content: bytes | None, mode: int, owner: str, group: str) -> None:
        directory, base = os.path.split(path)
        self._guard(directory)
        with self._told(path, "cannot be written"):
            real = self._real(directory)
            staged, target = f"{real}/.{base}.fleetmail-new", f"{real}/{base}"
            if content is not None:
                self._write_new(staged, target, content, (mode, owner, group))
            try:
                if content is None:
                    os.unlink(target)
                else:
                    os.rename(staged, target)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(staged)
                raise
            self._sync(real)

    def is_link(self, path: str) -> bool:
        directory, base = os.path.split(path)
        return os.path.islink(f"{self._real(directory)}/{base}")

    def _guard(self, directory: str) -> None:
        """HostError when a user other than root and us could lead the way to ``directory`` elsewhere."""
        outer = self.root.rstrip("/")
        steps = {one for path in (outer + directory, self._real(directory)) for one in _above(path)}
        for step in sorted(steps):
            with self._told(step, "cannot be looked at"):
                found = os.stat(step)
            open_to_others = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
            if open_to_others or found.st_uid not in (0, os.geteuid()):
                raise HostError(directory, f"can be led elsewhere by who may write to {step}", "choose another path")

    def staged_name(self, path: str) -> str:
        return self._beside(path, "new")

    def kept_name(self, path: str) -> str:
        return self._beside(path, "old")

    def sync(self, path: str) -> None:
        with self._told(path, "cannot be synced"):
            real = self._real(path)
            self._sync(real)
            self._sync(os.path.dirname(real))

    def keep(self, path: str, kept: str) -> bool:
        with self._told(path, "cannot be kept"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._real(kept))
            with contextlib.suppress(FileNotFoundError):
                os.link(self._real(path), self._real(kept))
                return True
        return False

    def rename(self, source: str, target: str) -> None:
        with self._told(target, "cannot be replaced"):
            real = self._real(target)
            os.rename(self._real(source), real)
            self._sync(os.path.dirname(real))

    def remove(self, path: str) -> None:
        with self._told(path, "cannot be removed"):
            real = self._real(path)
            if os.path.lexists(real):  # on a read-only file system unlink(2) fails even where there is nothing
                os.unlink(real)
                self._sync(os.path.dirname(real))

    def remove_tree(self, path: str) -> None:
        import shutil

        shutil.rmtree(self._real(path), ignore_errors=True)

    def remove_directory(self, path: str) -> None:
        with contextlib.suppress(OSError):  # not empty, or gone already
            os.rmdir(self._real(path))

    @contextlib.contextmanager
    def locked(self, directory: str, patience: float = 60) -> Iterator[None]:
        """Hold the one lock on ``directory`` (flock(2)); HostError when another run keeps it longer than that."""
        real, end = self._real(directory), time.monotonic() + patience
        while True:
            descriptor = self._opened(directory, real)
            try:
                while not _try_lock(descriptor):
                    if time.monotonic() > end:
                        raise HostError(directory, "another run holds its lock", "wait for it, or stop it")
                    time.sleep(0.05)
                if _is_still(real, descriptor):
                    yield
                    return
            finally:
                os.close(descriptor)  # it was removed by who held its lock, and perhaps made anew

    def _opened(self, directory: str, real: str) -> int:
        with self._told(directory, "cannot be opened"):
            return os.open(real, os.O_RDONLY | os.O_DIRECTORY)

    def label(self, staged: str, target: str) -> None:
        """Give the staged file the SELinux context that the target has."""
        with contextlib.suppress(OSError):  # no target yet, no SELinux, no extended attributes
            os.setxattr(staged, "security.selinux", os.getxattr(target, "security.selinux"))

    # -- running ---------------------------------------------------------------------------------------------------

    def run(
        self, argv: Sequence[str], data: bytes = b"", timeout: float = 60, environment: dict[str, str] | None = None
    ) -> Completed:
        words = list(argv) if self.live else ["/usr/sbin/chroot", self.root, *argv]
        self._names.clear()  # it may make an account
        settings = {"LC_ALL": "C", "PATH": ":".join(SEARCH), "HOME": "/root", **(environment or {})}
        try:
            # the core knows no AnsibleModule: pylint: disable-next=ansible-bad-function
            done = subprocess.run(words, input=data, capture_output=True, timeout=timeout, env=settings, check=False)
        except FileNotFoundError:
            return Completed(127, "", f"{argv[0]} is not there")
        except subprocess.TimeoutExpired:
            return Completed(124, "", f"{argv[0]} did not end within {timeout:g} s")
        except OSError as error:
            return Completed(126, "", str(error.strerror))
        return Completed(done.returncode, _text(done.stdout), _text(done.stderr))

    def service(self, action: str, name: str) -> Completed:
        if self.exists("/run/systemd/system"):
            return self.run(["systemctl", action, name])
        if self.exists("/etc/init.d/" + name):
            return self.run(["/etc/init.d/" + name, action])
        return Completed(127, "", f"there is neither systemd nor /etc/init.d/{name}")

    def log_mark(self, files: Sequence[str] = ()) -> LogMark:
        mark: LogMark = {}
        for path in (*MAIL_LOGS, *files):
            with contextlib.suppress(OSError):
                found = os.stat(self._real(path))
                mark[path] = (found.st_ino, found.st_size)
        if self.exists("/run/systemd/journal/socket"):
            mark["journal"] = (int(time.time()), 0)
        mark.update({path: (0, 0) for path in files if path not in mark})
        return mark

    def log(self, since: LogMark) -> str:
        parts = [self._tail(path, *place) for path, place in since.items() if path != "journal"]
        if "journal" in since and not any(parts):
            started = "--since=@{}".format(since["journal"][0])
            parts.append(self.run(["journalctl", "-q", "--no-pager", "SYSLOG_FACILITY=2", started]).out)
        return "".join(parts)[-LOG_LIMIT:]

    def _tail(self, path: str, inode: int, size: int) -> str:
        try:
            with open(self._real(path), "rb") as file:
                found = os.fstat(file.fileno())
                rotated = found.st_ino != inode or found.st_size < size
                file.seek(max(0 if rotated else size, found.st_size - LOG_LIMIT))
                return _text(file.read())
        except OSError:
            return ""

    # -- names, numbers and paths ----------------------------------------------------------------------------------

    def _real(self, path: str) -> str:
        """Where ``path`` is for us: links are followed as the host's own programs would, never out of the root.

        A hidden name of ours is itself: a link that lies there is nobody's file.
        """
        directory, base = os.path.split(path)
        if base.startswith(".") and ".fleetmail-" in base:
            return f"{self._real(directory).rstrip('/')}/{base}"
        if self.live:
            return os.path.realpath(path)
        parts, done, links = path.split("/")[::-1], "", 0
        while parts:
            part = parts.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = os.path.dirname(done)
                continue
            here = self.root + done + "/" + part
            if not os.path.islink(here):
                done += "/" + part
                continue
            links += 1
            if links > MAX_LINKS:
                raise HostError(path, "is a loop of symbolic links", "remove one of them")
            target = os.readlink(here)
            done = "" if target.startswith("/") else done
            parts.extend(target.split("/")[::-1])
        return self.root + done

    def _beside(self, path: str, kind: str) -> str:
        """A hidden name in the directory of the file that ``path`` leads to, in the host's terms."""
        real = self._real(path)
        inside = real if self.live else real[len(self.root) :]
        directory, base = os.path.split(inside)
        return "{}/.{}.fleetmail-{}".format(directory.rstrip("/"), base, kind)

    def _ids(self, owner: str, group: str) -> tuple[int, int]:
        found = self._number("passwd", owner), self._number("group", group)
        for kind, name, number in (("user", owner, found[0]), ("group", group, found[1])):
            if number is None:
                raise HostError(f"{kind} {name}", "is not known on the host", "install the software first")
        return found[0] or 0, found[1] or 0

    def _number(self, kind: str, name: str) -> int | None:
        if name.isdigit():
            return int(name)
        if self.live:
            return _system_number(kind, name)
        return next((number for known, number in self._accounts(kind) if known == name), None)

    def _name(self, kind: str, number: int) -> str:
        if self.live:
            return _system_name(kind, number)
        return next((name for name, known in self._accounts(kind) if known == number), str(number))

    def _accounts(self, kind: str) -> list[tuple[str, int]]:
        """Names and numbers, from the tree's own passwd(5) or group(5)."""
        if kind not in self._names:
            rows = [line.split(":") for line in self._plain("/etc/" + kind).splitlines()]
            self._names[kind] = [(row[0], int(row[2])) for row in rows if len(row) > 2 and row[2].isdigit()]
        return self._names[kind]

    def _plain(self, path: str) -> str:
        try:
            with open(self._real(path), "rb") as file:
                return _text(file.read())
        except OSError:
            return ""

    @staticmethod
    def _sync(real: str) -> None:
        descriptor = os.open(real, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @staticmethod
    @contextlib.contextmanager
    def _told(path: str, problem: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _host_error(path, problem, error) from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would wait for its writer


def _host_error(path: str, problem: str, error: OSError) -> HostError:
    hints = {
        errno.ENOSPC: "make room on that file system",
        errno.EDQUOT: "make room in the quota",
        errno.EROFS: "mount it writable",
        errno.EACCES: "become: true?",
        errno.EPERM: "become: true?",
        errno.EISDIR: "remove the directory of that name",
    }
    return HostError(path, f"{problem}: {error.strerror}", hints.get(error.errno or 0, ""))


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(real: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(real), os.fstat(descriptor))
    except OSError:
        return False


def _above(path: str) -> Iterator[str]:
    """The directories that hold the parts of a path."""
    while path.strip("/"):
        path = os.path.dirname(path.rstrip("/"))
        yield path or "/"


def _system_name(kind: str, number: int) -> str:
    import grp
    import pwd

    try:
        return pwd.getpwuid(number).pw_name if kind == "passwd" else grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _system_number(kind: str, name: str) -> int | None:
    import grp
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid if kind == "passwd" else grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
