"""Run a command where the kernel refuses unshare(2), as Docker's default profile makes it.

`python refusing_unshare.py command…`: a seccomp filter (seccomp(2)) that answers EPERM, kept by
every child. Linux on x86_64 and aarch64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

UNSHARE = {"x86_64": 272, "aarch64": 97}  #: the call's number, asm/unistd.h
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _instruction(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def refuse_unshare() -> None:
    code = b"".join(
        [
            _instruction(LOAD_WORD, 0, 0, 0),  # the call's number
            _instruction(JUMP_IF_EQUAL, 0, 1, UNSHARE[platform.machine()]),
            _instruction(RETURN, 0, 0, ERRNO | errno.EPERM),
            _instruction(RETURN, 0, 0, ALLOW),
        ]
    )
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    refuse_unshare()
    os.execv(sys.argv[1], sys.argv[1:])
