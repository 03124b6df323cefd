"""The identity of a collection's database and table, and the meaning of a changed one: facts in, finding out.

The identity is recorded in the database itself, so a restored backup brings back an older record. Two facts are
therefore kept outside: how far Kafka Connect has read, and a count that the database and Kafka advance together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from domain.quarantine import Reason


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """The current state of a database and a table.

    `server` names the server and its history (PostgreSQL: system identifier, timeline, database; MariaDB: server id).
    `table` is None if no table has that name. `end` is the end of the database's log, `gtids` the sequence number of
    each of its replication domains, `place` the end as the server writes it. `published` is whether capture's
    publication contains the table, None if there is no publication. `altered`: the table has another id because it was
    altered or rebuilt, as the database's log shows. `blind`: why changes are missing from what capture reads.
    """

    server: Mapping[str, str]
    table: str | None
    end: tuple[int, ...]
    gtids: Mapping[str, int] = field(default_factory=dict)
    published: bool | None = None
    place: str = ""
    altered: bool = False
    blind: str | None = None


@dataclass(frozen=True, slots=True)
class SourceIdentity:
    """The recorded identity of a collection's database and table for a capture; `end` and `gtids` as last seen.

    `begun`: its connector had committed a replication position after its snapshot.
    """

    capture: str
    server: Mapping[str, str]
    table: str
    end: tuple[int, ...]
    gtids: Mapping[str, int] = field(default_factory=dict)
    place: str = ""
    begun: bool = False

    def encode(self) -> str:
        """Return the identity as JSON text."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return orjson.dumps(fields).decode()

    @classmethod
    def decode(cls, text: str) -> SourceIdentity:
        """Return the identity in a text. Raises ValueError for a text that `encode` did not write."""
        try:
            read = orjson.loads(text)
            return cls(**{**read, "end": tuple(read["end"])})
        except (KeyError, TypeError, orjson.JSONDecodeError) as error:
            raise ValueError(f"not a recorded identity: {error}") from None


@dataclass(frozen=True, slots=True)
class Outside:
    """What Kafka knows about a source: how far its connector has read, and the highest published count.

    `begun`: the connector has committed a replication position after its snapshot, None if that is unknown.
    """

    read: tuple[int, ...] = ()
    gtids: Mapping[str, int] = field(default_factory=dict)
    count: int = 0
    begun: bool | None = None


@dataclass(frozen=True, slots=True)
class SourceChange:
    """Why a collection cannot continue with its database in the current state."""

    reason: Reason
    detail: str


def source_change(
    recorded: SourceIdentity, now: SourceFacts, outside: Outside, count: int | None = None
) -> SourceChange | None:
    """Return what changed since the identity was recorded, None if nothing did.

    `count` is the database's own count, None if it was not read. A database is an earlier state of itself (a backup, or
    a promoted copy) if its log ends before what was seen of it, or if its count is behind the count that Kafka has.
    """
    for name, value in recorded.server.items():
        if name in now.server and now.server[name] != value:
            return SourceChange(Reason.SERVER, f"the {name} is {now.server[name]} and was {value}")
    back = _went_back(recorded, now, outside, count)
    if back is not None:
        return SourceChange(Reason.SERVER, back)
    if recorded.begun and outside.begun is False:
        # A connector without a position takes a new snapshot and reads on from there; changes between are never read.
        return SourceChange(Reason.CAPTURE_LOST, f"Kafka Connect lost the place that {recorded.capture} had committed")
    if now.blind is not None:
        return SourceChange(Reason.CAPTURE_LOST, now.blind)
    return _table_change(recorded, now)


def _table_change(recorded: SourceIdentity, now: SourceFacts) -> SourceChange | None:
    if now.table is None:
        return SourceChange(Reason.TABLE_REPLACED, "there is no table of its name")
    if now.table != recorded.table and not now.altered:
        return SourceChange(Reason.TABLE_REPLACED, f"the table's id is {now.table} and was {recorded.table}")
    if now.published is False:
        return SourceChange(Reason.TABLE_REPLACED, "capture's publication does not contain the table")
    return None


def _went_back(recorded: SourceIdentity, now: SourceFacts, outside: Outside, count: int | None) -> str | None:
    if now.end < recorded.end:
        return f"its log ends at {now.place or now.end}, before what was seen of it ({recorded.place or recorded.end})"
    if now.end < outside.read:
        return f"its log ends at {now.place or now.end}, before what capture has read of it {tuple(outside.read)}"
    for seen in (recorded.gtids, outside.gtids):
        for domain, number in seen.items():
            if now.gtids.get(domain, 0) < number:
                return f"its GTIDs of domain {domain} end at {now.gtids.get(domain, 0)}, and {number} was seen"
    if count is not None and outside.count > count:
        return f"it is an earlier state of itself: its count is {count}, and {outside.count} was published"
    return None


def gtid_numbers(gtids: str) -> dict[str, int]:
    """Return the sequence number of each domain in a MariaDB GTID position (`domain-server-number`, with commas)."""
    found: dict[str, int] = {}
    for one in gtids.split(","):
        domain, _, rest = one.strip().partition("-")
        number = rest.rpartition("-")[2]
        if domain and number.isdigit():
            found[domain] = max(found.get(domain, 0), int(number))
    return found


_USE = re.compile(r"\s*use (\S+)\s*;", re.IGNORECASE)
# Comments and string literals. `/*! ... */` is excluded, because the server executes it. Double quotes may hold names.
_NOT_WORDS = re.compile(r"/\*(?!m?!).*?\*/|--\s[^\n]*|#[^\n]*|'(?:[^'\\]|\\.|'')*'", re.DOTALL)
_QUOTES = re.compile(r"[`\"]|/\*m?!\d*|\*/")
_WORD = re.compile(r"[^\s,();=]+")
_VERBS = frozenset({"rename", "drop", "create", "truncate", "alter", "optimize", "repair", "analyze"})
_BEFORE_NAMES = frozenset({"or", "replace", "temporary", "table", "tables", "if", "not", "exists"})


def replaced_by(statements: Sequence[str], table: str) -> str | None:
    """Return the kind of statement in a binary log that replaced `database.table` or its rows.

    Return the empty text if statements only altered or rebuilt it (`ALTER TABLE`, `OPTIMIZE TABLE`), None if no
    statement concerned it.
    """
    fate = None
    for statement in statements:
        words, names = _words(_QUOTES.sub("", _NOT_WORDS.sub(" ", statement.lower())))
        verb = next((word for word in words if word in _VERBS), None)
        if verb is None or table.lower() not in names:
            continue
        found = _replaces(verb, words[words.index(verb) + 1 :], names, table.lower())
        if found:
            return found
        fate = ""
    return fate


def _words(statement: str) -> tuple[list[str], list[str]]:
    """Return the words of a statement, and those that may name a table, with their database."""
    used = _USE.match(statement)
    database, words = used[1] if used else "", _WORD.findall(statement[used.end() :] if used else statement)
    verb = next((n for n, word in enumerate(words) if word in _VERBS), len(words))
    names = [word for word in words[verb + 1 :] if word not in _BEFORE_NAMES]
    return words, [name if "." in name else f"{database}.{name}" for name in names]


def _replaces(verb: str, rest: Sequence[str], names: Sequence[str], table: str) -> str | None:
    of_tables = any(word in {"table", "tables"} for word in rest[:4]) or verb == "truncate"
    named = table in (names[:1] if verb in {"create", "truncate"} else names)
    if verb in {"rename", "drop", "create", "truncate"} and of_tables and named:
        return f"{verb.upper()} TABLE"
    if verb != "alter":
        return None
    renamed = [rest[n + 1] for n, word in enumerate(rest[:-1]) if word == "rename"]
    if any(word not in {"column", "index", "key"} for word in renamed):
        return "ALTER TABLE ... RENAME"
    if "tablespace" in rest and {"import", "discard"} & set(rest):
        return "ALTER TABLE ... IMPORT TABLESPACE"
    moved = {"drop", "truncate", "exchange", "convert"} & set(rest)
    return "ALTER TABLE ... PARTITION" if "partition" in rest and moved else None
