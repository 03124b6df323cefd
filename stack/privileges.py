"""How to run a program as an ordinary user when we are root, since PostgreSQL refuses root. Nothing is started here."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from connectors.errors import ProcessFailed

_CHECK_BOUND_S = 20
_ORDINARY_ID = 1000
# Users that a system has for this purpose, in order of preference.
_SYSTEM_USERS = ("crossfade", "postgres")


@dataclass(frozen=True, slots=True)
class Unprivileged:
    """Words before a command that make it run without root's rights, and the user who must own its data."""

    prefix: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the command line that runs `words` as that user."""
        return [*self.prefix, *words]

    def own(self, path: Path) -> None:
        """Make that user the owner of a file or an empty folder."""
        if self.owner is not None:
            os.chown(path, *self.owner)


def unprivileged(home: Path, data: Path, program: Path) -> Unprivileged:
    """Choose how `program` runs with its data in `data`. Raises ProcessFailed if there is no way.

    An ordinary user runs it directly. Root prefers a user namespace in which its own id has an ordinary number: files
    stay root's, so folders that only root may enter stay reachable. Otherwise a system user runs it, and then needs
    access to both folders. Data that a system user already owns stays with that user.
    """
    if os.geteuid() != 0:
        return Unprivileged()
    reasons: list[str] = []
    owner = data.stat().st_uid if data.exists() else 0
    if owner == 0:
        namespace = _namespace()
        if namespace is None:
            reasons.append("user namespaces are not allowed here (unshare --user)")
        elif (path := _unreachable(namespace, (home, program))) is None:
            return namespace
        else:
            reasons.append(f"{path} belongs to another user, so that a user namespace cannot reach it")
    other = _system_user(owner)
    if other is None:
        reasons.append(f"there is no system user {' or '.join(_SYSTEM_USERS)}")
    elif (path := _unreachable(other, (_passable(home, data), program))) is None:
        return other
    else:
        reasons.append(f"the system user {other.owner[0] if other.owner else ''} cannot reach {path}")
    raise ProcessFailed(
        f"PostgreSQL refuses to run as root, and there is no way around it: {'; '.join(reasons)}.",
        "Run crossfade as an ordinary user, or (as root) `useradd --system crossfade` and set CROSSFADE_HOME "
        "to a folder that everybody may enter.",
    )


def _namespace() -> Unprivileged | None:
    unshare = shutil.which("unshare")
    if unshare is None:
        return None
    prefix = (unshare, "--user", f"--map-user={_ORDINARY_ID}", f"--map-group={_ORDINARY_ID}")
    return Unprivileged(prefix) if _answers([*prefix, "id", "-u"], str(_ORDINARY_ID)) else None


def _system_user(owner: int) -> Unprivileged | None:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return None
    known = {user.pw_name: user for user in pwd.getpwall() if user.pw_uid != 0}
    if owner != 0:
        candidates = [user for user in known.values() if user.pw_uid == owner]
    else:
        candidates = [known[name] for name in _SYSTEM_USERS if name in known]
    for user in candidates:
        prefix = (setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
        if _answers([*prefix, "id", "-u"], str(user.pw_uid)):
            return Unprivileged(prefix, (user.pw_uid, user.pw_gid))
    return None


def _passable(home: Path, data: Path) -> Path:
    """Let other users pass through the home to their data, without seeing what is in it."""
    for folder in (home, *(parent for parent in data.parents if parent.is_relative_to(home))):
        if folder.is_dir():
            folder.chmod(0o711)
    return data.parent if data.parent.is_dir() else home


def _unreachable(user: Unprivileged, paths: Sequence[Path]) -> Path | None:
    """Return the first path that the user cannot enter or run, None if there is none."""
    for path in paths:
        command = user.command(["test", "-x", str(path)])
        if subprocess.run(command, check=False, timeout=_CHECK_BOUND_S, capture_output=True).returncode != 0:
            return path
    return None


def _answers(command: Sequence[str], expected: str) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHECK_BOUND_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == expected
