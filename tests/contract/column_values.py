"""Columns of every type that may be metadata, in both databases, with edge values and random values of each.

Values are SQL literals. A table row takes one value from each column.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from schemas.settings import Connector
from tests.contract.legacy_places import Place

_NAMES = ("a", "Ä", "日本", "''", "\\", '"', " ", "%", "é", "e\u0301")


@dataclass(frozen=True)
class ColumnOfType:
    """A column: its SQL type, its default, the literals of its edge values, and a generator of random literals."""

    sql_type: str
    default: str
    edges: tuple[str, ...]
    any_value: Callable[[random.Random], str]


def quoted(text: str) -> str:
    return f"'{text}'"


def _text(rng: random.Random) -> str:
    return quoted("".join(rng.choice(_NAMES) for _ in range(rng.randrange(6))).replace("\\", "/"))


def _integer(low: int, high: int) -> Callable[[random.Random], str]:
    return lambda rng: str(rng.choice([rng.randint(low, high), rng.randint(max(low, -9), min(high, 9))]))


def _double(rng: random.Random) -> str:
    kind = rng.randrange(4)
    if kind == 0:
        return repr(rng.random())
    if kind == 1:
        return repr(rng.uniform(-180, 180))
    if kind == 2:
        return repr(rng.uniform(-1, 1) * 10.0 ** rng.randrange(-290, 290))
    return repr(round(rng.uniform(0, 1000), 2))


def _single(rng: random.Random) -> str:
    value = struct.unpack("<f", struct.pack("<I", rng.getrandbits(32)))[0]
    return f"{value:.9g}" if math.isfinite(value) and (value == 0 or abs(value) > 2e-38) else "0.25"


def _decimal(whole: int, places: int) -> Callable[[random.Random], str]:
    def any_value(rng: random.Random) -> str:
        digits = str(rng.randrange(10 ** rng.randint(1, whole + places))).zfill(places + 1)
        return rng.choice(["", "-"]) + f"{digits[:-places]}.{digits[-places:]}"

    return any_value


def _moment(form: str, years: tuple[int, int] = (1, 9999)) -> Callable[[random.Random], str]:
    first, last = datetime(years[0], 1, 3), datetime(years[1], 12, 28)

    def any_value(rng: random.Random) -> str:
        moment = first + timedelta(microseconds=rng.randrange(int((last - first).total_seconds()) * 10**6))
        return quoted(
            moment.strftime(form).rjust(len("2000-01-01"), "0") if form == "%Y-%m-%d" else moment.isoformat(" ")
        )

    return any_value


def _day(rng: random.Random) -> str:
    return quoted(date.fromordinal(rng.randint(1, date.max.toordinal())).isoformat())


def _time(hours: int) -> Callable[[random.Random], str]:
    def any_value(rng: random.Random) -> str:
        micro = rng.choice([0, rng.randrange(10**6)])
        return quoted(f"{rng.randrange(hours):02d}:{rng.randrange(60):02d}:{rng.randrange(60):02d}.{micro:06d}")

    return any_value


def _uuid(rng: random.Random) -> str:
    return quoted(str(UUID(int=rng.getrandbits(128), version=4)))


def _json(rng: random.Random) -> str:
    value = rng.choice(["null", "true", "1", "0.1", '"a"', "[]", repr(rng.random()), str(rng.getrandbits(60))])
    return quoted(rng.choice([value, f'{{"b": {value}, "a": [1, {value}]}}', f"[{value},   {value}]"]))


def _one_of(*values: str) -> Callable[[random.Random], str]:
    return lambda rng: rng.choice(values)


_FLOATS = (
    "0",
    "-0.0",
    "0.1",
    "1e22",
    "5e-324",
    "2.2250738585072014e-308",
    "1.7976931348623157e308",
    "48.85837",
    "0.30000000000000004",
)
_TEXTS = ("''", "' '", "'a '", "'NULL'", "'é'", "'e\u0301'", "'🎈'")
_JSONS = (
    "'null'",
    "'{}'",
    "'[1.10, 1e2, 123456789012345678901234567890]'",
    '\'{"b": null, "a": "\u00fc"}\'',
    "'\"\"'",
    "'1e400'",
)

_POSTGRES: dict[str, ColumnOfType] = {
    "c_text": ColumnOfType("text", "'preset'", _TEXTS, _text),
    "c_varchar": ColumnOfType("varchar(40)", "'preset'", _TEXTS, _text),
    "c_mood": ColumnOfType("{s}.mood", "'sad'", ("'happy'", "'so so'"), _one_of("'sad'", "'happy'", "'so so'")),
    "c_int2": ColumnOfType("smallint", "7", ("-32768", "32767"), _integer(-32768, 32767)),
    "c_int4": ColumnOfType("integer", "7", ("-2147483648", "2147483647"), _integer(-(2**31), 2**31 - 1)),
    "c_int8": ColumnOfType(
        "bigint",
        "7",
        ("-9223372036854775808", "9223372036854775807", "9007199254740993", "9007199254740991"),
        _integer(-(2**63), 2**63 - 1),
    ),
    "c_real": ColumnOfType(
        "real", "1.1", ("'NaN'", "'Infinity'", "'-Infinity'", "3.4028235e38", "1e-45", "0.1"), _single
    ),
    "c_double": ColumnOfType("double precision", "1.1", ("'NaN'", "'Infinity'", "'-Infinity'", *_FLOATS), _double),
    "c_numeric": ColumnOfType(
        "numeric",
        "1.10",
        ("'NaN'", "'Infinity'", "'-Infinity'", "0.000", "-0", "1e40", "1e-40", "19.90"),
        _decimal(20, 12),
    ),
    "c_scaled": ColumnOfType("numeric(12,3)", "1.10", ("'NaN'", "999999999.999", "-0.001", "19.9"), _decimal(9, 3)),
    "c_bool": ColumnOfType("boolean", "true", ("true", "false"), _one_of("true", "false")),
    "c_timestamp": ColumnOfType(
        "timestamp",
        "'2020-01-01 00:00:00'",
        (
            "'infinity'",
            "'-infinity'",
            "'0044-03-15 12:00:00 BC'",
            "'4713-01-01 00:00:00 BC'",
            "'294276-12-31 23:59:59.999999'",
            "'1970-01-01 00:00:00'",
            "'0001-01-01 00:00:00'",
            "'9999-12-31 23:59:59.999999'",
            "'10000-01-01 00:00:00'",
        ),
        _moment(""),
    ),
    "c_timestamptz": ColumnOfType(
        "timestamptz",
        "'2020-01-01 00:00:00+00'",
        (
            "'infinity'",
            "'-infinity'",
            "'0044-03-15 12:00:00+00 BC'",
            "'294276-12-31 23:59:59.999999+00'",
            "'1970-01-01 00:00:00+00'",
            "'0001-01-01 00:00:00+02'",
            "'9999-12-31 23:59:59.999999-05'",
        ),
        _moment(""),
    ),
    "c_date": ColumnOfType(
        "date",
        "'2020-01-01'",
        (
            "'infinity'",
            "'-infinity'",
            "'0044-03-15 BC'",
            "'4713-01-01 BC'",
            "'5874897-12-31'",
            "'1970-01-01'",
            "'0001-01-01'",
            "'9999-12-31'",
            "'10000-01-01'",
        ),
        _day,
    ),
    "c_time": ColumnOfType("time", "'12:00'", ("'00:00:00'", "'23:59:59.999999'", "'24:00:00'"), _time(24)),
    "c_time0": ColumnOfType("time(0)", "'12:00'", ("'24:00:00'", "'00:00:01'"), _time(23)),
    "c_uuid": ColumnOfType(
        "uuid",
        "'6f1c3a52-7f0e-4f57-9c2b-2a3f1f0a9b11'",
        ("'00000000-0000-0000-0000-000000000000'", "'FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF'"),
        _uuid,
    ),
    "c_json": ColumnOfType("json", "'{\"a\": 1}'", (*_JSONS, '\'{"a": 1, "a": 2}\''), _json),
    "c_jsonb": ColumnOfType("jsonb", "'{\"a\": 1}'", _JSONS, _json),
}

_MARIADB: dict[str, ColumnOfType] = {
    "c_char": ColumnOfType("char(40)", "'preset'", _TEXTS, _text),
    "c_varchar": ColumnOfType("varchar(40)", "'preset'", _TEXTS, _text),
    "c_longtext": ColumnOfType("longtext", "'preset'", _TEXTS, _text),
    "c_latin": ColumnOfType(
        "varchar(40) CHARACTER SET latin1", "'preset'", ("'é'", "''"), _one_of("'ä'", "'a'", "'ß '")
    ),
    "c_enum": ColumnOfType(
        r"enum('sad','happy','so so','','a,b','a\\b','a\\\\b')",
        "'sad'",
        ("'happy'", "'so so'", "''", "'SAD'", "'a,b'", r"'a\\b'", r"'a\\\\b'"),
        _one_of("'sad'", "'happy'", "'so so'"),
    ),
    "c_tiny": ColumnOfType("tinyint", "7", ("-128", "127"), _integer(-128, 127)),
    "c_flag": ColumnOfType("tinyint(1)", "1", ("0", "1", "5", "-1", "127"), _integer(-128, 127)),
    "c_bit": ColumnOfType("bit(1)", "b'1'", ("b'0'", "b'1'"), _one_of("b'0'", "b'1'")),
    "c_small": ColumnOfType("smallint unsigned", "7", ("0", "65535"), _integer(0, 65535)),
    "c_medium": ColumnOfType("mediumint", "7", ("-8388608", "8388607"), _integer(-(2**23), 2**23 - 1)),
    "c_umedium": ColumnOfType("mediumint unsigned", "7", ("0", "16777215"), _integer(0, 2**24 - 1)),
    "c_int": ColumnOfType("int", "7", ("-2147483648", "2147483647"), _integer(-(2**31), 2**31 - 1)),
    "c_uint": ColumnOfType("int unsigned zerofill", "7", ("0", "4294967295"), _integer(0, 2**32 - 1)),
    "c_big": ColumnOfType(
        "bigint",
        "7",
        ("-9223372036854775808", "9223372036854775807", "9007199254740993"),
        _integer(-(2**63), 2**63 - 1),
    ),
    "c_ubig": ColumnOfType(
        "bigint unsigned", "7", ("0", "9223372036854775808", "18446744073709551615"), _integer(0, 2**64 - 1)
    ),
    "c_year": ColumnOfType("year", "2020", ("0", "1901", "2155"), lambda rng: str(rng.randint(1901, 2155))),
    "c_float": ColumnOfType(
        "float", "1.1", ("3.40282e38", "-3.40282e38", "1.17549e-38", "0.1", "16777216", "-0.0"), _single
    ),
    "c_double": ColumnOfType("double", "1.1", _FLOATS[:4] + _FLOATS[5:], _double),
    "c_decimal": ColumnOfType(
        "decimal(30,10)",
        "1.10",
        ("0.000", "99999999999999999999.9999999999", "-0.0000000001", "19.90"),
        _decimal(19, 10),
    ),
    "c_datetime": ColumnOfType(
        "datetime(6)",
        "'2020-01-01 00:00:00'",
        (
            "'0000-00-00 00:00:00'",
            "'2015-00-15 10:00:00'",
            "'2015-06-00 10:00:00.5'",
            "'1970-01-01 00:00:00'",
            "'1000-01-01 00:00:00'",
            "'9999-12-31 23:59:59.999999'",
            "'0000-01-01 00:00:00'",
            "'0001-01-01 00:00:00'",
        ),
        _moment(""),
    ),
    "c_datetime0": ColumnOfType(
        "datetime",
        "'2020-01-01 00:00:00'",
        ("'0000-00-00 00:00:00'", "'2015-00-00 00:00:00'", "'1969-12-31 23:59:59'"),
        lambda rng: _moment("")(rng)[:20] + "'",
    ),
    "c_stamp": ColumnOfType(
        "timestamp(6)",
        "'2020-01-01 00:00:00'",
        ("0", "'1970-01-01 00:00:01'", "'2038-01-19 03:14:07.999999'"),
        _moment("", (1971, 2037)),
    ),
    "c_date": ColumnOfType(
        "date",
        "'2020-01-01'",
        (
            "'0000-00-00'",
            "'2015-00-15'",
            "'2015-06-00'",
            "'2015-00-00'",
            "'1970-01-01'",
            "'9999-12-31'",
            "'0000-01-01'",
            "'0001-01-01'",
            "'1582-10-10'",
        ),
        _day,
    ),
    "c_time": ColumnOfType(
        "time(6)",
        "'12:00'",
        ("'838:59:59.999999'", "'-838:59:59.999999'", "'-00:00:01'", "'24:00:00'", "'00:00:00'"),
        _time(800),
    ),
    "c_time0": ColumnOfType(
        "time",
        "'12:00'",
        ("'838:59:59'", "'-100:00:00'", "'00:00:00'"),
        lambda rng: _time(800)(rng).partition(".")[0] + "'",
    ),
    "c_uuid": ColumnOfType(
        "uuid",
        "'6f1c3a52-7f0e-4f57-9c2b-2a3f1f0a9b11'",
        ("'00000000-0000-0000-0000-000000000000'", "'FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF'"),
        _uuid,
    ),
    "c_json": ColumnOfType("json", "'{\"a\": 1}'", _JSONS[:3] + _JSONS[4:], _json),
}

COLUMNS: dict[Connector, dict[str, ColumnOfType]] = {"postgres": _POSTGRES, "mariadb": _MARIADB}


async def create_tables(place: Place) -> None:
    """Create `documents`, with nullable columns, and `strict`, with NOT NULL columns. Each column has its default."""
    name, columns = place.schema, COLUMNS[place.connector]
    if place.connector == "postgres":
        await place.execute(f"CREATE TYPE {name}.mood AS ENUM ('sad', 'happy', 'so so')")
    for table, null in (("documents", "NULL"), ("strict", "NOT NULL")):
        listed = ", ".join(
            f"{column} {one.sql_type.replace('{s}', name)} {null} DEFAULT {one.default}"
            for column, one in columns.items()
        )
        await place.execute(
            f"CREATE TABLE {name}.{table} (id bigint PRIMARY KEY, body text DEFAULT 'preset body', {listed}, "
            "crossfade_version bigint)"
        )
        if place.connector == "postgres":
            await place.execute(f"ALTER TABLE {name}.{table} REPLICA IDENTITY FULL")


async def fill(place: Place, tables: Sequence[str], first: int, count: int, rng: random.Random) -> None:
    """Insert rows with ids from `first` on: the defaults, every edge value, and `count` rows of random values.

    `documents` also gets a row of NULLs.
    """
    columns = COLUMNS[place.connector]
    names = ", ".join(columns)
    longest = max(len(column.edges) for column in columns.values())
    async with place.connection() as connection:
        if place.connector == "mariadb":
            await connection.execute("SET SESSION sql_mode = 'STRICT_ALL_TABLES', time_zone = '+00:00'")
        for table in tables:
            other = "NULL" if table == "documents" else "DEFAULT"
            rows = [
                [column.edges[n] if n < len(column.edges) else other for column in columns.values()]
                for n in range(longest)
            ]
            rows += [[column.any_value(rng) for column in columns.values()] for _ in range(count)]
            if table == "documents":
                rows.append(["NULL"] * len(columns))
            start = f"INSERT INTO {place.schema}.{table}"
            await connection.execute(f"{start} (id) VALUES ({first})")
            for n in range(0, len(rows), 50):
                listed = ", ".join(
                    f"({first + 1 + n + k}, {'NULL' if k % 2 else quoted('text')}, {', '.join(row)})"
                    for k, row in enumerate(rows[n : n + 50])
                )
                await connection.execute(f"{start} (id, body, {names}) VALUES {listed}")
