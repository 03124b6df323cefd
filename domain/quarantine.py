"""The reasons to quarantine a collection, and their remedies. Values only: quarantine begins and ends elsewhere.

A reason is kept as its number in the legacy database (`crossfade_meta`), so that a restart does not silently end the
quarantine.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Reason(IntEnum):
    """The numbers are stored: a number that was used never gets another meaning."""

    CAPTURE_LOST = 1
    UNREADABLE = 2
    MODEL = 3
    TABLE = 4
    RECAPTURING = 5
    SERVER = 6
    TABLE_REPLACED = 7
    TOPIC_REPLACED = 8
    POINTS_REPLACED = 9
    CONNECTOR = 10
    UNREACHABLE = 11
    FOREIGN_CHANGE = 12


_MESSAGES = {
    Reason.CAPTURE_LOST: "capture lost its position in the database's log, so changes may be missing",
    Reason.UNREADABLE: "a captured change cannot be read",
    Reason.MODEL: "its points in Qdrant were made by another model",
    Reason.TABLE: "its table is not as the configuration says",
    Reason.RECAPTURING: "it is being captured again, or that was interrupted",
    Reason.SERVER: "its database server is not the one that was recorded",
    Reason.TABLE_REPLACED: "its table was dropped, renamed or created again",
    Reason.TOPIC_REPLACED: "a topic that its changes go through is not the one that it was, or lost unread records",
    Reason.POINTS_REPLACED: "its points in Qdrant are not those that were written, or changes were lost on the way",
    Reason.CONNECTOR: "its connector does not run, so changes made in its table do not arrive",
    Reason.UNREACHABLE: "a store that it needs cannot be used",
    Reason.FOREIGN_CHANGE: "a captured change came from another database than its own",
}
_REMEDY = {
    Reason.CAPTURE_LOST: "crossfade recapture {name}",
    Reason.UNREADABLE: "crossfade config check, then: crossfade recapture {name}",
    Reason.MODEL: "set its model back or give the collection another name, then: crossfade recapture {name}",
    Reason.TABLE: "crossfade config check --apply; the collection comes back by itself",
    Reason.RECAPTURING: "crossfade recapture {name}",
    Reason.SERVER: "crossfade recapture {name}",
    Reason.TABLE_REPLACED: "crossfade config check, then: crossfade recapture {name}",
    Reason.TOPIC_REPLACED: "crossfade topics adopt",
    Reason.POINTS_REPLACED: "crossfade recapture {name}",
    Reason.CONNECTOR: "fix the cause; the worker starts the connector again by itself",
    Reason.UNREACHABLE: "fix the cause; the collection comes back by itself",
    Reason.FOREIGN_CHANGE: "crossfade config check, then: crossfade recapture {name}",
}
# Detected again as long as the cause lasts, so never recorded.
_PASSING = frozenset({Reason.TABLE, Reason.CONNECTOR, Reason.UNREACHABLE})
_OF_CAPTURE = frozenset(
    {Reason.CAPTURE_LOST, Reason.UNREADABLE, Reason.SERVER, Reason.TABLE_REPLACED, Reason.FOREIGN_CHANGE}
)


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A quarantined collection. `detail` is what was seen, if the process that reports it saw it itself."""

    collection: str
    reason: Reason
    detail: str = ""

    @property
    def message(self) -> str:
        """What happened, as a sentence without its full stop."""
        return f"{_MESSAGES[self.reason]}: {self.detail}" if self.detail else _MESSAGES[self.reason]

    @property
    def remedy(self) -> str:
        """The command or step that fixes it."""
        return _REMEDY[self.reason].format(name=self.collection)

    @property
    def document(self) -> dict[str, str]:
        """The quarantine as JSON reports it. `said` and `mend` are former names, until the next major version."""
        reason, message, remedy = self.reason.name.lower(), self.message, self.remedy
        return {"reason": reason, "message": message, "remedy": remedy, "said": message, "mend": remedy}

    @property
    def passes(self) -> bool:
        """Whether it ends with its cause, without a command; such a quarantine is never recorded."""
        return self.reason in _PASSING

    @property
    def of_capture(self) -> bool:
        """Whether it concerns the source epoch in which the collection was captured when the reason was found."""
        return self.reason in _OF_CAPTURE

    @property
    def captures(self) -> bool:
        """Whether captured changes are taken nevertheless.

        During a recapture the new snapshot is taken, before the collection is proved equal. If the database is
        unreachable or the connector failed, the changes captured before that are taken. If capture lost nothing and
        only Qdrant may differ, all changes are taken.
        """
        return self.reason in {Reason.RECAPTURING, Reason.UNREACHABLE, Reason.POINTS_REPLACED, Reason.CONNECTOR}

    @property
    def writes_qdrant(self) -> bool:
        """Whether producers' changes still go to Qdrant; if not, the collection behaves as in phase `off`."""
        return self.reason not in {Reason.MODEL, Reason.TABLE}
