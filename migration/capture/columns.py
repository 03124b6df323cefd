"""Which tables and columns a connector sends, according to its configuration. Values in, values out."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from connectors.debezium.configuration import EXACT, TABLE_LIST, escaped, exactly
from connectors.sql.layout import VERSION_COLUMN
from migration.collection import CollectionPorts
from schemas.settings import Kafka

COLUMN_LIST, DATABASE_LIST, KEY_LIST = "column.include.list", "database.include.list", "message.key.columns"
_SEPARATOR = re.compile(r"[\s:;,]")


def columns_of(kafka: Kafka, members: Sequence[CollectionPorts]) -> dict[str, str]:
    """Return the part of a connector's configuration that lists the columns to send: documents' and the version's."""
    keys, names, long = {}, {}, {}
    for ports in members:
        if ports.capture is not None:
            table, settings = ports.capture.table, ports.settings
            keys[table] = settings.key
            names[table] = [*settings.columns, VERSION_COLUMN]
            long[table] = settings.content_columns
    return Columns(keys, names, long, kafka.max_text_bytes + 1, kafka.max_record_bytes).config()


def kept_tables(config: dict[str, str], current: dict[str, str]) -> dict[str, str]:
    """Return the lists of a configuration, extended by the other tables of the current one and their columns."""
    own, had = exact(config[TABLE_LIST]), exact(current.get(TABLE_LIST, config[TABLE_LIST]))
    others = [table for table in had if table not in own]
    lists = {TABLE_LIST: ",".join(sorted({*own, *had}))}
    if DATABASE_LIST in config:
        databases = exact(current.get(DATABASE_LIST, config[DATABASE_LIST]))
        lists[DATABASE_LIST] = ",".join(sorted({*config[DATABASE_LIST].split(","), *databases}))
    known = exact(current.get(COLUMN_LIST, ""))
    columns = [
        column
        for table in others
        for column in ([each for each in known if each.startswith(f"{table}\\.")] or [_every_column(table)])
    ]
    lists[COLUMN_LIST] = ",".join(sorted({*config[COLUMN_LIST].split(","), *columns}))
    known_keys = exact(current.get(KEY_LIST, ""), ";")
    keys = [each for each in known_keys if each.partition(":")[0] in map(_in_key_list, others)]
    lists[KEY_LIST] = ";".join(sorted({*config[KEY_LIST].split(";"), *keys}))
    return lists


def exact(listed: str, separator: str = ",") -> list[str]:
    """Return the patterns of a list as case-sensitive; those of connectors made earlier ignore the case of names."""
    return [each if each.startswith(EXACT) else EXACT + each for each in listed.split(separator)]


def without_tables(config: Mapping[str, str], tables: Collection[str]) -> dict[str, str]:
    """Return a connector's configuration without some of its tables, unchanged if no table would be left."""
    leaving = {exactly(table) for table in tables}
    left = [table for table in config.get(TABLE_LIST, "").split(",") if table not in leaving]
    if not left:
        return dict(config)
    columns = [
        each
        for each in config.get(COLUMN_LIST, "").split(",")
        if not any(each.startswith(f"{table}\\.") for table in leaving)
    ]
    in_key_list = {_in_key_list(table) for table in leaving}
    keys = [each for each in config.get(KEY_LIST, "").split(";") if each.partition(":")[0] not in in_key_list]
    return {**config, TABLE_LIST: ",".join(left), COLUMN_LIST: ",".join(columns), KEY_LIST: ";".join(keys)}


@dataclass(frozen=True, slots=True)
class Columns:
    """What a connector sends of its tables, by table; what it sends of a row must fit into `record_bytes`.

    The record of a change has the configured `keys` as its key, whatever the primary key is: all changes of a document
    are in one partition, in order, and an update that assigns a row to another document is a deletion and a creation.
    Of a `long` column it sends at most `text_chars` characters, which is more than a document may have: a text above
    that limit is refused like any other text that is too long, instead of ending the connector.
    """

    keys: Mapping[str, Sequence[str]]
    names: Mapping[str, Sequence[str]]
    long: Mapping[str, Sequence[str]]
    text_chars: int
    record_bytes: int

    def config(self) -> dict[str, str]:
        """Return this part of a connector's configuration."""
        return {
            COLUMN_LIST: _listed(self.names),
            KEY_LIST: ";".join(
                sorted(
                    f"{_in_key_list(exactly(table))}:{','.join(map(escaped, key))}" for table, key in self.keys.items()
                )
            ),
            f"column.truncate.to.{self.text_chars}.chars": _listed(self.long),
            # A Kafka Connect worker that is not crossfade's own otherwise sends at most 1 MiB.
            "producer.override.max.request.size": str(self.record_bytes),
        }


def _every_column(table_pattern: str) -> str:
    """Return the pattern of all columns of a table, given the pattern of the table."""
    return f"{table_pattern}\\..*"


def _in_key_list(table_pattern: str) -> str:
    """Return the pattern of a table without the characters that separate the parts of the key list."""
    return _SEPARATOR.sub(lambda found: rf"\x{{{ord(found[0]):x}}}", table_pattern)


def _listed(columns: Mapping[str, Sequence[str]]) -> str:
    return ",".join(sorted(exactly(f"{table}.{name}") for table, names in columns.items() for name in names))
