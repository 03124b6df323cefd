"""Which connections return to MariaDB's pool, which statements are not sent, and how texts are decoded."""

from __future__ import annotations

from typing import Any

import aiomysql
import pytest

from connectors.errors import Refused
from connectors.sql.mariadb.pool import Pool, TooLong
from connectors.sql.mariadb.texts import ENCODING

PACKET_BYTES = 4096


class Cursor:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def __aenter__(self) -> Cursor:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    def mogrify(self, statement: str, values: tuple[Any, ...] | None) -> str:
        return statement if values is None else statement % tuple(f"'{value}'" for value in values)

    async def execute(self, statement: str) -> None:
        self._connection.sent.append(statement)
        if "broken" in statement:
            b"\xff".decode()

    async def fetchone(self) -> tuple[str, str]:
        return "STRICT_ALL_TABLES", str(PACKET_BYTES)

    async def fetchall(self) -> list[dict[str, str]]:
        return [{"a": "1"}]


class Connection:
    def __init__(self) -> None:
        self.sent: list[str] = []
        self.closed = False

    def cursor(self, kind: object = None) -> Cursor:
        return Cursor(self)

    async def begin(self) -> None:
        self.sent.append("BEGIN")

    async def rollback(self) -> None:
        self.sent.append("ROLLBACK")

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    connections: list[Connection] = []

    async def connect(**arguments: object) -> Connection:
        connections.append(Connection())
        return connections[-1]

    monkeypatch.setattr(aiomysql, "connect", connect)
    return connections


async def test_a_connection_whose_answer_was_not_read_to_its_end_is_closed(made: list[Connection]) -> None:
    pool = Pool("mysql://u:p@h/d")
    with pytest.raises(Refused):
        async with pool.session() as session:
            await session.fetch("SELECT broken")
    with pytest.raises(Refused):
        async with pool.transaction() as session:
            await session.fetch("SELECT broken")
    async with pool.session() as session:
        assert await session.fetch("SELECT 1") == [{"a": "1"}]
    assert [connection.closed for connection in made] == [True, True, False]
    assert all("ROLLBACK" not in connection.sent for connection in made)


@pytest.mark.parametrize(("letter", "most"), [("x", 4067), ("é", 2033), ("\ud800", 1355)])
async def test_a_statement_that_no_packet_holds_is_refused_and_not_sent(
    made: list[Connection], letter: str, most: int
) -> None:
    pool = Pool("mysql://u:p@h/d")
    async with pool.session() as session:
        await session.fetch("SELECT %s", [letter * most])
        sent = len(made[0].sent)
        with pytest.raises(TooLong, match="bytes, max_allowed_packet of the server is 4096"):
            await session.execute("SELECT %s", [letter * (most + 5)])
        assert len(made[0].sent) == sent


async def test_a_limit_that_was_raised_counts_for_what_comes_after_a_refusal(made: list[Connection]) -> None:
    pool = Pool("mysql://u:p@h/d")
    with pytest.raises(Refused):
        async with pool.transaction() as session:
            await session.execute("SELECT %s", ["x" * PACKET_BYTES])
    assert (made[0].sent[-1], made[0].closed) == ("ROLLBACK", True)
    async with pool.session():
        assert len(made) == 2


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (b"a\xc3\xa9\xf0\x9f\x98\x80", "aé😀"),
        (b"a\xed\xa0\xbd\xed\xb8\x80b", "a\ufffd\ufffdb"),
        (b"\xed\xa0\xbd\xc3\xa9", "\ufffdé"),
        (b"\xffb", "\ufffdb"),
        (b"", ""),
    ],
)
def test_half_a_pair_of_surrogates_is_the_character_that_capture_puts_there(given: bytes, text: str) -> None:
    assert given.decode(ENCODING) == text


def test_what_is_sent_is_utf_8() -> None:
    assert "aé😀\udcff".encode(ENCODING, "surrogateescape") == "aé😀".encode() + b"\xff"
    with pytest.raises(UnicodeEncodeError):
        "\ud800".encode(ENCODING, "surrogateescape")
