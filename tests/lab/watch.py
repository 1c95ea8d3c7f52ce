# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every program that starts in a tree and every file that is written there, as the kernel tells it (fanotify(7)).

Sampling /proc misses short processes. A program that has just begun opens the dynamic linker's cache, and waits in that
until we allow it: its command line and environment can be read in peace. A file is seen when its writer closes it, by a
descriptor, so that one which is renamed or removed at once is seen too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import stat
import struct
import threading
from typing import NamedTuple

from .pid_one import libc
from .tree import Tree

_FAN_CLASS_CONTENT, _FAN_CLOEXEC = 0x4, 0x1
_FAN_MARK_ADD, _FAN_MARK_FILESYSTEM = 0x1, 0x100
_FAN_CLOSE_WRITE, _FAN_OPEN_PERM = 0x8, 0x10000
_FAN_ALLOW = 0x1
_AT_FDCWD = -100
_EVENT = struct.Struct("IBBHQii")  # length, version, reserved, metadata's length, mask, descriptor, process
_LINKER_CACHE = "etc/ld.so.cache"
_LARGEST = 8 << 20


class Started(NamedTuple):
    """A program: its words and its environment, NUL between them."""

    command: bytes
    environment: bytes


class Written(NamedTuple):
    """A file when it was closed: what it was called, who may read it, what was in it."""

    path: str
    mode: int
    owner: int
    group: int
    content: bytes


class Watch:
    """Use it as a context manager around what is to be watched. Programs without the dynamic linker are not seen."""

    def __init__(self, host: Tree) -> None:
        self.started: list[Started] = []
        self.written: list[Written] = []
        self._root = host.path
        self._descriptor = -1
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._listen, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        flags = os.O_RDONLY | os.O_CLOEXEC
        self._descriptor = _checked(libc.fanotify_init(_FAN_CLASS_CONTENT | _FAN_CLOEXEC, flags))
        self._mark(_FAN_MARK_ADD, _FAN_OPEN_PERM, str(self._root / _LINKER_CACHE))
        self._mark(_FAN_MARK_ADD | _FAN_MARK_FILESYSTEM, _FAN_CLOSE_WRITE, str(self._root))
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join(10)
        os.close(self._descriptor)  # who still waits for an answer goes on
        os.close(self._stop)

    def _mark(self, flags: int, mask: int, path: str) -> None:
        wide = ctypes.c_uint64(mask)
        _checked(libc.fanotify_mark(self._descriptor, flags, wide, _AT_FDCWD, ctypes.c_char_p(os.fsencode(path))))

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._descriptor in ready:
                self._take(os.read(self._descriptor, 65536))
            elif ready:
                return

    def _take(self, data: bytes) -> None:
        while data:
            length, _version, _reserved, _size, mask, descriptor, process = _EVENT.unpack_from(data)
            data = data[length:]
            try:
                with contextlib.suppress(OSError):
                    if mask & _FAN_OPEN_PERM:
                        self.started.append(Started(_of(process, "cmdline"), _of(process, "environ")))
                    else:
                        self._note(descriptor)
            finally:
                if mask & _FAN_OPEN_PERM:
                    os.write(self._descriptor, struct.pack("iI", descriptor, _FAN_ALLOW))
                os.close(descriptor)

    def _note(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if stat.S_ISREG(found.st_mode):
            content = os.pread(descriptor, _LARGEST, 0)
            self.written.append(Written(path, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, content))


def _of(process: int, file: str) -> bytes:
    with open(f"/proc/{process}/{file}", "rb") as content:
        return content.read()


def _checked(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "fanotify")
    return answer
