"""The system user that PostgreSQL runs as when the caller is root, which it refuses to be."""

import ctypes
import os
import pwd
import stat
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recplatform.devstack.errors import StackProblem

UNPRIVILEGED = "nobody"

PR_SET_SECUREBITS = 28
# Without it, access(2), which PostgreSQL asks about its own files, would ignore the capability.
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAP_VERSION_3 = 0x20080522


@dataclass(frozen=True, slots=True)
class Identity:
    """A user that a child changes to before it runs its program.

    ``reach`` lets it pass folders it has no right to enter, such as /root.
    """

    uid: int
    gid: int
    reach: bool

    def own(self, path: Path) -> None:
        """Make the user the owner of a folder that was created for it."""
        os.chown(path, self.uid, self.gid)

    def change(self) -> Callable[[], None]:
        """Return the function that a child calls between fork and exec."""
        libc = ctypes.CDLL(None, use_errno=True)
        mask = 1 << CAP_DAC_OVERRIDE
        header = struct.pack("Ii", CAP_VERSION_3, 0)
        # Effective, permitted and inheritable, first the low 32 bits, then the high ones.
        sets = struct.pack("6I", mask, mask, mask, 0, 0, 0)

        def change() -> None:
            if self.reach:
                libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
            os.setgroups([])
            os.setgid(self.gid)
            os.setuid(self.uid)
            if self.reach:
                libc.capset(header, sets)
                libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)

        return change


def identity_for(*paths: Path) -> Identity | None:
    """Return whom to become so as not to be root, able to use the paths; None when not root."""
    if os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise StackProblem(
            f'PostgreSQL does not run as root, and there is no user "{UNPRIVILEGED}" to run it as. '
            "Run the command as another user, or set DATABASE_URL to use a PostgreSQL of your own."
        ) from None
    blocked = [path for path in paths if not _open_to_all(path)]
    if blocked and sys.platform != "linux":
        raise StackProblem(
            f'PostgreSQL does not run as root, and the user "{UNPRIVILEGED}" may not enter '
            f"{blocked[0]}. Run the command as another user, or set DATABASE_URL."
        )
    return Identity(user.pw_uid, user.pw_gid, reach=bool(blocked))


def _open_to_all(path: Path) -> bool:
    resolved = path.resolve()
    return all(
        not part.is_dir() or part.stat().st_mode & stat.S_IXOTH
        for part in (resolved, *resolved.parents)
    )
