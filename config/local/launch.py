"""Become somebody else, then become the command: the last step before a child process runs.

A script of its own, run as `python -I -S launch.py [options] -- command…`, because a `preexec_fn`
runs Python between fork and exec, which is not safe in a process that has threads. The pid stays
the same through both execs. Standard library only; it never starts a process.

PostgreSQL refuses to run as root. Two ways out, on Linux:
  --user-namespace UID:GID  root outside is UID inside; files stay owned by root outside
  --set-user UID:GID        give root up for good
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

CLONE_NEWUSER = 0x10000000  #: linux/sched.h
PR_SET_PDEATHSIG = 1  #: linux/prctl.h
EXIT_REFUSED = 111  #: the system did not let us become what was asked


def enter_user_namespace(uid: int, gid: int) -> None:
    """Map our own ids to `uid` and `gid` in a namespace of our own (user_namespaces(7))."""
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare(CLONE_NEWUSER)")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {outer_uid} 1"),
        ("gid_map", f"{gid} {outer_gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def set_user(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def die_with(parent: int, number: int) -> None:
    """Ask Linux to send us signal `number` when `parent` dies, even by SIGKILL."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        os.kill(os.getpid(), signal.SIGKILL)


def _pair(text: str) -> tuple[int, int]:
    uid, _, gid = text.partition(":")
    return int(uid), int(gid)


def main(arguments: list[str]) -> None:
    cut = arguments.index("--")
    options, command = arguments[:cut], arguments[cut + 1 :]
    chosen = dict(option.removeprefix("--").split("=", 1) for option in options)
    try:
        os.nice(int(chosen.get("nice", "0")))
        if "user-namespace" in chosen:
            enter_user_namespace(*_pair(chosen["user-namespace"]))
        if "set-user" in chosen:
            set_user(*_pair(chosen["set-user"]))
    except OSError as error:
        print(f"launch: {error}", file=sys.stderr)
        sys.exit(EXIT_REFUSED)
    os.umask(0o077)
    # Last, because a change of user clears it (prctl(2)).
    if "death-signal" in chosen:
        die_with(int(chosen["parent"]), int(chosen["death-signal"]))
    try:
        os.execv(command[0], command)
    except OSError as error:
        print(f"launch: {command[0]}: {error}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
