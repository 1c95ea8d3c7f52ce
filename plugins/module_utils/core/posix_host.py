# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The Host port on the machine itself, or on a tree below ``root``: reading, naming and running.

What a compliant host needs is here; what changes one is in ``posix_writing``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

from .errors import HostError
from .host import Completed, LogMark, Snapshot

SEARCH = ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin")
LARGEST = 64 << 20  # bytes of a file that is read whole; a map of a million entries has less
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
            with open(self.real(path), "rb", opener=_without_waiting) as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise HostError(path, "is not a regular file", "it may have been meant to be one")
                if found.st_size > LARGEST:
                    raise HostError(path, f"has more than {LARGEST >> 20} MiB", "what wrote it?")
                content = file.read() or b""  # None: it would wait, as files of the kernel's can
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise host_error(path, "cannot be read", error) from None
        owner = self.name_of("passwd", found.st_uid)
        return Snapshot(content, stat.S_IMODE(found.st_mode), owner, self.name_of("group", found.st_gid))

    def exists(self, path: str) -> bool:
        return os.path.exists(self.real(path))

    def names_in(self, directory: str) -> list[str]:
        try:
            return sorted(os.listdir(self.real(directory)))
        except OSError:
            return []

    def inode(self, path: str) -> int | None:
        try:
            return os.stat(self.real(path)).st_ino
        except OSError:
            return None

    def modified(self, path: str) -> float:
        try:
            return os.stat(self.real(path)).st_mtime
        except OSError:
            return 0

    def has_account(self, owner: str = "", group: str = "") -> bool:
        sought = [("passwd", owner), ("group", group)]
        return all(self._number(kind, name) is not None for kind, name in sought if name)

    def which(self, program: str) -> str | None:
        for directory in SEARCH:
            path = f"{directory}/{program}"
            if os.access(self.real(path), os.X_OK):
                return path
        return None

    # -- writing: see posix_writing ----------------------------------------------------------------------------------

    def make_directory(self, path: str, mode: int, owner: str, group: str) -> bool:
        from . import posix_writing

        return posix_writing.make_directory(self, path, mode, owner, group)

    def own_directory(self, path: str, repair: bool = True) -> bool:
        from . import posix_writing

        return posix_writing.own_directory(self, path, repair)

    def stage(self, path: str, content: bytes, mode: int, owner: str, group: str) -> str:
        from . import posix_writing

        staged = self.staged_name(path)
        with told(path, "cannot be written"):
            posix_writing.write_new(self, self.real(staged), self.real(path), content, (mode, owner, group))
        return staged

    def refill(self, staged: str, content: bytes) -> None:
        with told(staged, "cannot be written"):
            descriptor = os.open(self.real(staged), os.O_WRONLY | os.O_NOFOLLOW)
            with open(descriptor, "wb") as file:
                file.write(content)
                file.truncate()
                file.flush()
                os.fsync(descriptor)

    def replace(self, path: str, content: bytes | None, mode: int, owner: str, group: str) -> None:
        from . import posix_writing

        posix_writing.replace(self, path, content, (mode, owner, group))

    def is_link(self, path: str) -> bool:
        directory, base = os.path.split(path)
        return os.path.islink(f"{self.real(directory)}/{base}")

    def staged_name(self, path: str) -> str:
        return self._beside(path, "new")

    def kept_name(self, path: str) -> str:
        return self._beside(path, "old")

    def sync(self, path: str) -> None:
        with told(path, "cannot be synced"):
            real = self.real(path)
            sync_directory(real)
            sync_directory(os.path.dirname(real))

    def keep(self, path: str, kept: str) -> bool:
        with told(path, "cannot be kept"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.real(kept))
            with contextlib.suppress(FileNotFoundError):
                os.link(self.real(path), self.real(kept))
                return True
        return False

    def rename(self, source: str, target: str) -> None:
        with told(target, "cannot be replaced"):
            real = self.real(target)
            os.rename(self.real(source), real)
            sync_directory(os.path.dirname(real))

    def remove(self, path: str) -> None:
        with told(path, "cannot be removed"):
            real = self.real(path)
            if os.path.lexists(real):  # on a read-only file system unlink(2) fails even where there is nothing
                os.unlink(real)
                sync_directory(os.path.dirname(real))

    def remove_tree(self, path: str) -> None:
        import shutil

        shutil.rmtree(self.real(path), ignore_errors=True)

    def remove_directory(self, path: str) -> None:
        with contextlib.suppress(OSError):  # not empty, or gone already
            os.rmdir(self.real(path))

    def locked(self, directory: str, patience: float = 60) -> AbstractContextManager[None]:
        from . import posix_writing

        return posix_writing.locked(self, directory, patience)

    def label(self, staged: str, target: str) -> None:
        """Give the staged file the SELinux context that the target has."""
        with contextlib.suppress(OSError):  # no target yet, no SELinux, no extended attributes
            os.setxattr(staged, "security.selinux", os.getxattr(target, "security.selinux"))

    # -- running ---------------------------------------------------------------------------------------------------

    def run(
        self, argv: Sequence[str], data: bytes = b"", timeout: float = 60, environment: dict[str, str] | None = None
    ) -> Completed:
        import subprocess

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
        return Completed(done.returncode, decoded(done.stdout), decoded(done.stderr))

    def service(self, action: str, name: str) -> Completed:
        if self.exists("/run/systemd/system"):
            return self.run(["systemctl", action, name])
        if self.exists("/etc/init.d/" + name):
            return self.run(["/etc/init.d/" + name, action])
        return Completed(127, "", f"there is neither systemd nor /etc/init.d/{name}")

    def log_mark(self, files: Sequence[str] = ()) -> LogMark:
        from . import mail_log

        return mail_log.mark(self, files)

    def log(self, since: LogMark) -> str:
        from . import mail_log

        return mail_log.since(self, since)

    # -- names, numbers and paths ----------------------------------------------------------------------------------

    def real(self, path: str) -> str:
        """Where ``path`` is for us: links are followed as the host's own programs would, never out of the root.

        A hidden name of ours is itself: a link that lies there is nobody's file.
        """
        directory, base = os.path.split(path)
        if base.startswith(".") and ".fleetmail-" in base:
            return f"{self.real(directory).rstrip('/')}/{base}"
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
        real = self.real(path)
        inside = real if self.live else real[len(self.root) :]
        directory, base = os.path.split(inside)
        return "{}/.{}.fleetmail-{}".format(directory.rstrip("/"), base, kind)

    def ids(self, owner: str, group: str) -> tuple[int, int]:
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

    def name_of(self, kind: str, number: int) -> str:
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
            with open(self.real(path), "rb") as file:
                return decoded(file.read())
        except OSError:
            return ""


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would wait for its writer


@contextlib.contextmanager
def told(path: str, problem: str) -> Iterator[None]:
    """Tell an OSError as a HostError of that path."""
    try:
        yield
    except OSError as error:
        raise host_error(path, problem, error) from None


def sync_directory(real: str) -> None:
    """See that the names in a directory, or a file's content, are on the disk."""
    descriptor = os.open(real, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def host_error(path: str, problem: str, error: OSError) -> HostError:
    hints = {
        errno.ENOSPC: "make room on that file system",
        errno.EDQUOT: "make room in the quota",
        errno.EROFS: "mount it writable",
        errno.EACCES: "become: true?",
        errno.EPERM: "become: true?",
        errno.EISDIR: "remove the directory of that name",
    }
    return HostError(path, f"{problem}: {error.strerror}", hints.get(error.errno or 0, ""))


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


def decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
