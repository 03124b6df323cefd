"""A visit to every state that the world around one document can reach, and the checks of these states."""

from __future__ import annotations

from collections import deque

from tests.exploration.model import World, is_fault
from tests.exploration.state import GONE, HIGH, OFFSETS, Point, Row, State

End = tuple[Row, Point | None, int, int]
"""What is left when there is nothing to do: the row, the point, the ledger, and the legacy version."""


def explore(world: World, first: State, ends: set[End] | None = None) -> tuple[int, list[str] | None]:
    """Visit every state; return the number of states, and the history of a violation if there is one.

    Add to `ends` what is left in each state with nothing to do.
    """
    seen: dict[State, tuple[State, str] | None] = {first: None}
    queue = deque([first])
    undisturbed = is_undisturbed(first)
    while queue:
        s = queue.popleft()
        finished = True
        for name, after in world.steps(s):
            if not is_fault(name):
                finished = False
            wrong = goes_down(s, after) or ("legacy writer" in name and writes_older(s, after))
            if not wrong and len(after.resolved) > len(s.resolved):
                wrong = not first.damages_left and taken_twice(after)
                wrong = wrong or (undisturbed and brings_back_older(after))
            if wrong:
                return len(seen), [*history(seen, s), f"{name}: {wrong}"]
            if after not in seen:
                seen[after] = (s, name)
                queue.append(after)
        if finished and ends is not None:
            ends.add((s.row, s.point, s.ledger, s.legacy_version))
        held = s.point.content if s.point else GONE
        if finished and s.row.content != held:
            return len(seen), [*history(seen, s), f"legacy holds {s.row.content}, Qdrant {held}"]
    return len(seen), None


def goes_down(s: State, after: State) -> str:
    """Return what is wrong if the version of the point goes down, else an empty string."""
    down = s.point is not None and (after.point is None or after.point.version < s.point.version)
    return "the stored version went down" if down and s.point is not None and s.point.version != HIGH else ""


def writes_older(s: State, after: State) -> str:
    """Return what is wrong if the legacy writer gives the row a version below the legacy version."""
    older = after.row != s.row and after.row.version is not None and after.row.version < s.legacy_version
    return "an older version was written over a newer one" if older else ""


def taken_twice(s: State) -> str:
    """Return what is wrong if the newest decision is about a change that another version already brought.

    The position of a change identifies it. After damage to the ledger or the loss of a slot, this is allowed.
    """
    newest = s.resolved[-1]
    if newest.origin == "refresh":
        return ""
    at = s.log[newest.version & OFFSETS].position
    earlier = [one.version for one in s.resolved if one.origin == newest.origin and one.version != newest.version]
    twice = any(s.log[version & OFFSETS].position == at for version in earlier)
    return "a second delivery took effect" if twice else ""


def is_undisturbed(first: State) -> bool:
    """Return whether every write of a producer is applied as it was sent, and only its echo ends the wait for it."""
    plain = all(content == GONE or content.isalpha() for content in first.submits_left)
    return plain and not (first.damages_left or first.repairs_left or first.archive.version)


def brings_back_older(s: State) -> str:
    """Return what is wrong if the newest decision is about a captured change from before a producer's last upsert."""
    newest = s.resolved[-1]
    upserts = [one for one in s.resolved if one.origin == "producer" and one.version < newest.version]
    if newest.origin != "legacy" or not upserts or upserts[-1].content == GONE:
        return ""
    at = s.log[newest.version & OFFSETS].position[2]
    behind = any(after.version == upserts[-1].version for _, after, _ in s.captured[: at + 1])
    return "" if behind else "a change that a producer overwrites took effect behind it"


def history(seen: dict[State, tuple[State, str] | None], s: State) -> list[str]:
    """Return the names of the steps that led to a state."""
    names: list[str] = []
    came = seen[s]
    while came is not None:
        names.append(came[1])
        came = seen[came[0]]
    return names[::-1]
