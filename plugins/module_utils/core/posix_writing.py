# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""PosixHost where it changes the host. See ``port.Host`` for what each function does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator

from .errors import HostError
from .posix_host import PosixHost, sync_directory, told

# every Postfix program waits until main.cf is two seconds old, lest it reads a half-written one; a rename is never that
SETTLED = 3

Allowed = tuple[int, str, str]  # mode, owner, group


def make_directory(host: PosixHost, path: str, mode: int, owner: str, group: str) -> bool:
    if host.exists(path):
        return False
    parent = os.path.dirname(path)
    if parent != path:
        make_directory(host, parent, 0o755, "root", "root")
    with told(path, "cannot be made"):
        real = host.real(path)
        try:
            os.mkdir(real, 0o700)
        except FileExistsError:  # another run was faster
            return False
        os.chown(real, *host.ids(owner, group))
        os.chmod(real, mode)
    return True


def own_directory(host: PosixHost, path: str, repair: bool) -> bool:
    with told(path, "cannot be used"):
        if not host.exists(path):
            return repair and make_directory(host, path, 0o700, str(os.geteuid()), str(os.getegid()))
        found = os.stat(host.real(path))
        if not stat.S_ISDIR(found.st_mode):
            raise HostError(path, "is not a directory", "move it away, or choose another path")
        if found.st_uid != os.geteuid():
            owner = host.name_of("passwd", found.st_uid)
            raise HostError(path, f"belongs to {owner}, not to who runs this", "become that user, or give it away")
        wide = bool(stat.S_IMODE(found.st_mode) & 0o077)
        if wide and repair:
            os.chmod(host.real(path), 0o700)
        return wide


def write_new(host: PosixHost, real: str, target: str, content: bytes, allowed: Allowed) -> None:
    """Write a new file at ``real`` that will become ``target``: never wider than allowed, on the disk at the end."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(real)
    descriptor = os.open(real, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchown(descriptor, *host.ids(*allowed[1:]))
            os.fchmod(descriptor, allowed[0])
            host.label(real, target)
            os.utime(descriptor, (time.time() - SETTLED,) * 2)
            os.fsync(descriptor)
    except BaseException:
        os.unlink(real)
        raise


def replace(host: PosixHost, path: str, content: bytes | None, allowed: Allowed) -> None:
    directory, base = os.path.split(path)
    _guard(host, directory)
    with told(path, "cannot be written"):
        real = host.real(directory)
        staged, target = f"{real}/.{base}.fleetmail-new", f"{real}/{base}"
        if content is not None:
            write_new(host, staged, target, content, allowed)
        try:
            if content is None:
                os.unlink(target)
            else:
                os.rename(staged, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(staged)
            raise
        sync_directory(real)


def _guard(host: PosixHost, directory: str) -> None:
    """HostError when a user other than root and us could lead the way to ``directory`` elsewhere."""
    outer = host.root.rstrip("/")
    steps = {one for path in (outer + directory, host.real(directory)) for one in _above(path)}
    for step in sorted(steps):
        with told(step, "cannot be looked at"):
            found = os.stat(step)
        open_to_others = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
        if open_to_others or found.st_uid not in (0, os.geteuid()):
            raise HostError(directory, f"can be led elsewhere by who may write to {step}", "choose another path")


def _above(path: str) -> Iterator[str]:
    """The directories that hold the parts of a path."""
    while path.strip("/"):
        path = os.path.dirname(path.rstrip("/"))
        yield path or "/"


@contextlib.contextmanager
def locked(host: PosixHost, directory: str, patience: float) -> Iterator[None]:
    """Hold the one lock on ``directory`` (flock(2)); HostError when another run keeps it longer than that."""
    real, end = host.real(directory), time.monotonic() + patience
    while True:
        make_directory(host, directory, 0o700, str(os.geteuid()), str(os.getegid()))
        descriptor = _opened(directory, real)
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


def _opened(directory: str, real: str) -> int:
    with told(directory, "cannot be opened"):
        return os.open(real, os.O_RDONLY | os.O_DIRECTORY)


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
