"""As whom PostgreSQL runs, since it refuses to run as root.

An ordinary user, or macOS: directly. Root on Linux: in a user namespace, where files stay root's
and nothing else on the machine changes. Where that is refused (Docker's default seccomp profile
forbids unshare): as `nobody`, with the data and, where needed, a copy of the programs in a folder
that nobody can reach. The mode is written beside the data folder, because it decides who owns it.
"""

from __future__ import annotations

import enum
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from config.local.child import LAUNCH

#: Only root writes to the first; the others are open to all, hence `own_folder`.
REACHABLE_ROOTS = (Path("/var/lib"), Path("/var/tmp"), Path("/tmp"))


class CannotBecomeAnyone(RuntimeError):
    """Root, and no way to run a server as anybody else."""


class UnsafeFolder(RuntimeError):
    """A folder in a place open to all is not what we made, or not only ours."""


class Mode(enum.StrEnum):
    DIRECT = "direct"
    USER_NAMESPACE = "user-namespace"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Account:
    uid: int
    gid: int


def choose_mode(*, is_root: bool, is_linux: bool, may_unshare: Callable[[], bool]) -> Mode:
    """Pick the gentlest mode that works here."""
    if not is_root:
        return Mode.DIRECT
    if is_linux and may_unshare():
        return Mode.USER_NAMESPACE
    return Mode.NOBODY


def mode_here() -> Mode:
    return choose_mode(
        is_root=os.geteuid() == 0,
        is_linux=sys.platform.startswith("linux"),
        may_unshare=may_unshare,
    )


def nobody() -> Account:
    """The account without rights; another unprivileged one where a system has no `nobody`."""
    entries = sorted(pwd.getpwall(), key=lambda entry: (entry.pw_name != "nobody", -entry.pw_uid))
    for entry in entries:
        if entry.pw_uid > 0:
            return Account(entry.pw_uid, entry.pw_gid)
    raise CannotBecomeAnyone(
        "PostgreSQL refuses to run as root, and this system knows no other user. Create one and "
        "run bin/start as that user, or set DATABASE_URL."
    )


def launch_options(mode: Mode) -> tuple[str, ...]:
    """What launch.py needs to be told."""
    if mode is Mode.DIRECT:
        return ()
    account = nobody()
    option = "--user-namespace" if mode is Mode.USER_NAMESPACE else "--set-user"
    return (f"{option}={account.uid}:{account.gid}",)


def may_unshare() -> bool:
    """Try it: neither a kernel version nor a sysctl says what a container forbids."""
    command = [sys.executable, "-I", "-S", str(LAUNCH)]
    command += [*launch_options(Mode.USER_NAMESPACE), "--", "/bin/sh", "-c", "exit 0"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def others_can_reach(folder: Path) -> bool:
    """Say whether every folder above and `folder` itself let others pass."""
    return all(part.stat().st_mode & stat.S_IXOTH for part in (folder, *folder.parents))


def own_folder(path: Path) -> Path:
    """Make a folder that only we can change, or accept the one that we made before.

    In /tmp anybody may have put a link or a folder of that name there first.
    """
    try:
        path.mkdir(mode=0o755)
        path.chmod(0o755)  # the umask may have taken bits away
    except FileExistsError:
        found = path.lstat()
        is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
        if not is_ours or found.st_mode & 0o022:
            raise UnsafeFolder(
                f"{path} is not a folder of our own. Look at it, and remove it."
            ) from None
    return path


def reachable_folder(name: str) -> Path:
    """A folder of ours called `name` that others can pass through, kept between starts."""
    errors = []
    for root in REACHABLE_ROOTS:
        try:
            if others_can_reach(root):
                return own_folder(root / name)
        except OSError as error:
            errors.append(str(error))
    raise CannotBecomeAnyone(
        "PostgreSQL refuses to run as root, user namespaces are refused here, and no folder was "
        f"found that another user can reach ({'; '.join(errors)}). Run bin/start as an ordinary "
        "user, or set DATABASE_URL."
    )


def copy_programs(installation: Path, target: Path) -> Path:
    """Copy a PostgreSQL installation to `target`, whole or not at all; return the copy.

    A wheel's programs look for their libraries in a folder beside the package, by a path
    relative to themselves: `package/…/bin` and `package.libs`. The copy keeps that order.
    """
    package = installation.parent
    if not target.exists():
        half = target.with_name(f"{target.name}.half")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(installation, half / package.name / installation.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, half / libraries.name, symlinks=True)
        subprocess.run(["chmod", "-R", "u+rwX,go+rX,go-w", str(half)], check=True)
        half.rename(target)
    return target / package.name / installation.name


def give_to(account: Account, path: Path) -> None:
    """Make `account` the owner of `path` and all below it."""
    for folder, _, files in os.walk(path):
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
        for name in files:
            os.chown(Path(folder) / name, account.uid, account.gid, follow_symlinks=False)
