"""A bounded pool of aiomysql connections. Every error is one of `connectors.errors`. No SQL of a collection is here.

Every value is returned as text (or bytes). `schemas.values` converts it, as it does for captured changes.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, unquote

import aiomysql
import pymysql
from pymysql.constants import CR
from pymysql.converters import encoders

from connectors.errors import CrossfadeError, Misconfigured, Refused, StoreUnavailable, TransientError
from connectors.sql.address import parsed
from connectors.sql.mariadb.texts import ENCODING

CONNECT_TIMEOUT_S = 10.0
ACQUIRE_TIMEOUT_S = 15.0
# Only this timeout detects a half-open connection. No statement that a worker role runs takes this long.
COMMAND_TIMEOUT_S = 25.0
STATEMENT_TIMEOUT_S = 20  # at the server, before the caller gives up
# An operator's statement may build an index.
FIX_TIMEOUT_S = 3600.0
IDLE_S = 5.0  # a connection that was idle longer is pinged before use
MAX_CONNECTIONS = 4
_COMMAND_BYTES = 16  # what a packet has besides the statement, and some to spare

# The mode is strict, so that a wrong value is refused and not changed. A key of 0 stays 0. Lock waits end before the
# caller gives up. Rows are sorted by all of a key, not by its first 1,024 bytes. The isolation level is READ COMMITTED,
# because gap locks would make batches of new documents wait for each other. A worker that died silently leaves no locks
# behind for longer than 20 s.
_SESSION = (
    "SET SESSION sql_mode = "
    "'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION',"
    " time_zone = '+00:00', tx_isolation = 'READ-COMMITTED', innodb_lock_wait_timeout = 10,"
    f" max_statement_time = {STATEMENT_TIMEOUT_S},"
    " idle_transaction_timeout = 20, max_sort_length = 65536, sql_notes = 0"
)

# Numbers of MariaDB's errors. An error that is not listed is refused: only errors known to pass are waited for.
# Source: MariaDB, "MariaDB Error Codes".
_UNAVAILABLE = {
    *range(1, 34),  # files of the server
    *(1023, 1024, 1026, 1040, 1042, 1043, 1047, 1053, 1077, 1079, 1080, 1081, 1129, 1135, 1152, 1154, 1155, 1156, 1157),
    *(1158, 1159, 1160, 1161, 1180, 1184, 1203, 1226, 1290, 1792, 1836, 1927),
}
_TRANSIENT = {
    *(1020, 1021, 1037, 1038, 1041, 1099, 1114, 1205, 1206, 1213, 1223, 1297, 1317, 1412, 1613, 1614, 1615, 1637),
    *(1969, 3024, 3058),
}
_LOGIN = {1044, 1045, 1049, 1130, 1524, 1698, 1820, 1862}
_MISCONFIGURED = {1046, 1054, 1142, 1143, 1146, 1191, 1227, 1305, 1370, *_LOGIN}
_SIGNALLED = 1644
# If the server reset a connection, the event loop itself refuses to write to it: uvloop raises a RuntimeError.
_DRIVER_ERRORS = (pymysql.err.MySQLError, OSError, TimeoutError, asyncio.IncompleteReadError, RuntimeError)
_QUOTED = (re.compile(r"(entry) '.*' (for key)", re.DOTALL), re.compile(r"(value: )'.*'( for column|$)", re.DOTALL))
# Text that is still in quotes is a name only after a word that announces a name. An apostrophe (can't) opens no quote.
_LITERAL = re.compile(
    r"(?<!\w)(?<!@)(?<!column )(?<!key )(?<!field )(?<!table )(?<!database )(?<!user )(?<!server on )(?<!trigger )"
    r"(?<!function )'[^']*'",
    re.IGNORECASE,
)
_NO_SPACE = re.compile(r"\berror 28\b")
# The numbers of the server's own messages. A trigger may signal with any other number.
_OWN = {*range(1, 34), *range(1000, 2000), *range(3000, 3100), *range(4000, 4300)}
_CLIENT = {number for number in vars(CR).values() if isinstance(number, int)}


def mapped(error: BaseException) -> CrossfadeError:
    """Return the port error for a driver error. Its message contains no value of a document."""
    if isinstance(error, pymysql.err.MySQLError):
        number = _number(error)
        return _kind(number, error)(reason(number, str(error.args[-1]) if error.args else type(error).__name__))
    if isinstance(error, UnicodeError):
        return Refused("a value that the database has no form for")
    if isinstance(error, (OSError, TimeoutError, asyncio.IncompleteReadError, RuntimeError)):
        return StoreUnavailable(f"MariaDB does not answer ({type(error).__name__})")
    return TransientError(f"{type(error).__name__} in the MariaDB driver")


def _number(error: BaseException) -> int:
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def _kind(number: int, error: Exception) -> type[CrossfadeError]:
    for numbers, kind in (
        (_UNAVAILABLE | _CLIENT, StoreUnavailable),
        (_TRANSIENT, TransientError),
        (_MISCONFIGURED, Misconfigured),
    ):
        if number in numbers:
            return kind
    content = isinstance(error, (pymysql.err.IntegrityError, pymysql.err.DataError))
    if isinstance(error, pymysql.err.InterfaceError) or (number == 0 and not content):
        return StoreUnavailable  # the driver's own: not connected
    if number == 1030 and _NO_SPACE.search(str(error)):
        return StoreUnavailable
    programming = isinstance(error, pymysql.err.ProgrammingError) and number in _OWN
    return Misconfigured if programming else Refused


def reason(number: int, message: str) -> str:
    """Return a database's message without the values that it may quote.

    The message that a trigger signals, with a number of its own or not, may contain anything.
    """
    if number == _SIGNALLED or number not in {0, *_OWN, *_CLIENT}:
        return f"{number}: raised by a trigger or procedure"
    for pattern in _QUOTED:
        message = pattern.sub(r"\1 (value) \2", message)
    return f"{number}: {_LITERAL.sub('(value)', message).partition(chr(10))[0]}"


def arguments(dsn: str) -> dict[str, Any]:
    """Return the arguments of `mysql://user:password@host:port/database[?ssl=true]`. Raises Misconfigured."""
    parts = parsed(dsn, ("mysql", "mariadb"), "MariaDB")
    port = parts.port or 3306
    secure = parse_qs(parts.query).get("ssl", ["false"])[-1].lower() in {"true", "1", "require"}
    return {
        "host": parts.hostname,
        "port": port,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "db": unquote(parts.path.lstrip("/")) or None,
        "ssl": ssl.create_default_context() if secure else None,
        "charset": "utf8mb4",
        "autocommit": True,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "init_command": _SESSION,
        "conv": dict(encoders),  # no decoders: values stay text
    }


class TooLong(Refused):
    """A statement does not fit into one packet. The server would answer it by closing the connection."""


class Session:
    """A connection on loan: statements have `%s` parameters, and rows are returned as text.

    Raises TooLong for a statement of more than `packet_bytes` bytes, without sending it.
    """

    def __init__(self, connection: Any, timeout_s: float, packet_bytes: int) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._packet_bytes = packet_bytes

    def patient(self, timeout_s: float) -> Session:
        """Return the same connection, with `timeout_s` as the limit of each statement."""
        return Session(self._connection, timeout_s, self._packet_bytes)

    async def fetch(self, statement: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return all rows, each as values by column name."""
        async with asyncio.timeout(self._timeout_s), self._connection.cursor(aiomysql.DictCursor) as cursor:
            await cursor.execute(self._whole(cursor, statement, values))
            return list(await cursor.fetchall())

    async def execute(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Execute a statement. Return how many rows it changed."""
        async with asyncio.timeout(self._timeout_s), self._connection.cursor() as cursor:
            return int(await cursor.execute(self._whole(cursor, statement, values)))

    def _whole(self, cursor: Any, statement: str, values: Sequence[Any]) -> str:
        whole: str = cursor.mogrify(statement, tuple(values) or None)
        most = self._packet_bytes - _COMMAND_BYTES
        if len(whole) * 4 > most and (size := len(whole.encode(errors="surrogatepass"))) > most:
            raise TooLong(f"the statement has {size} bytes, max_allowed_packet of the server is {self._packet_bytes}")
        return whole

    async def begin(self) -> None:
        """Begin a transaction."""
        await self._connection.begin()

    async def commit(self) -> None:
        """Commit the transaction."""
        await self._connection.commit()

    async def rollback(self) -> None:
        """Roll the transaction back."""
        await self._connection.rollback()


class Pool:
    """At most four connections, opened when needed.

    A connection that a cancelled or failed statement left unusable is closed.
    """

    def __init__(
        self, dsn: str, maximum: int = MAX_CONNECTIONS, *, command_timeout_s: float = COMMAND_TIMEOUT_S
    ) -> None:
        self._arguments = arguments(dsn)
        self._command_timeout_s = command_timeout_s
        self._places = asyncio.Semaphore(maximum)
        self._free: list[tuple[Any, float]] = []
        self._closed = False
        self._connected = False
        self._packet_bytes = 0  # of the newest connection

    @property
    def database(self) -> str | None:
        """The database that the address names, None if it names none."""
        name: str | None = self._arguments["db"]
        return name

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Lend a connection. A driver error inside is raised as a port error, without the driver's own text."""
        try:
            async with asyncio.timeout(ACQUIRE_TIMEOUT_S):
                await self._places.acquire()
        except TimeoutError:
            raise StoreUnavailable("all connections to MariaDB are in use") from None
        connection = None
        sound = False
        try:
            connection = await self._connection()
            yield Session(connection, self._command_timeout_s, self._packet_bytes)
            sound = True
        except CrossfadeError as error:
            # If the server's limit was raised since, only new connections have the new limit.
            sound = not isinstance(error, TooLong)
            raise
        except (*_DRIVER_ERRORS, UnicodeError) as error:
            port_error = mapped(error)
            if connection is None and self._connected and _number(error) in _LOGIN:
                port_error = StoreUnavailable(f"the login is refused: {port_error}")
            # After data that could not be decoded, the rest of the answer is still unread.
            left = isinstance(error, (TimeoutError, UnicodeDecodeError))
            sound = not left and not isinstance(port_error, StoreUnavailable)
            raise port_error from None
        finally:
            self._give_back(connection, sound)
            self._places.release()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """Lend a connection in a transaction that ends with the block: committed, or rolled back on any error."""
        async with self.session() as session:
            await session.begin()
            try:
                yield session
                await session.commit()
            except (CrossfadeError, pymysql.err.MySQLError, UnicodeEncodeError):
                await session.rollback()
                raise

    @asynccontextmanager
    async def snapshot(self, timeout_s: float) -> AsyncIterator[Session]:
        """Lend a connection for reading one state of the database. Each statement may take `timeout_s`."""
        async with self.session() as session:
            await session.execute(f"SET SESSION max_statement_time = {timeout_s:.0f}")
            await session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            try:
                yield session.patient(timeout_s)
            finally:
                with suppress(*_DRIVER_ERRORS):
                    await session.rollback()
                    await session.execute(f"SET SESSION max_statement_time = {STATEMENT_TIMEOUT_S}")

    async def _connection(self) -> Any:
        if self._closed:
            raise StoreUnavailable("the connections to MariaDB are closed")
        while self._free:
            connection, since_s = self._free.pop()
            if asyncio.get_running_loop().time() - since_s < IDLE_S:
                return connection
            try:
                await connection.ping(reconnect=False)
            except _DRIVER_ERRORS:
                connection.close()
            else:
                return connection
        connection = await aiomysql.connect(**self._arguments)
        connection._encoding = ENCODING
        try:
            async with asyncio.timeout(self._command_timeout_s):
                self._packet_bytes = await _packet_bytes(connection)
        except BaseException:
            connection.close()
            raise
        self._connected = True
        return connection

    def _give_back(self, connection: Any, sound: bool) -> None:
        if connection is None:
            return
        if not sound or self._closed or connection.closed:
            connection.close()
        else:
            self._free.append((connection, asyncio.get_running_loop().time()))

    async def close(self) -> None:
        """Close the connections. Connections in use are closed when they are returned."""
        self._closed = True
        while self._free:
            connection, _ = self._free.pop()
            try:
                await connection.ensure_closed()
            except _DRIVER_ERRORS:
                connection.close()


async def _packet_bytes(connection: Any) -> int:
    """Return the most bytes that the server accepts in one packet.

    Raises Misconfigured if a proxy did not pass on the session's mode: values would be clipped and rounded.
    """
    async with connection.cursor() as cursor:
        await cursor.execute("SELECT @@session.sql_mode, @@session.max_allowed_packet")
        modes, packet_bytes = await cursor.fetchone() or ("", 0)
    if "STRICT_ALL_TABLES" not in str(modes).split(","):
        raise Misconfigured("sql_mode of the session is not strict, though it was set: connect without the proxy")
    return int(packet_bytes)


async def execute_all(dsn: str, statements: Sequence[str]) -> None:
    """Execute statements one after the other. Raises Misconfigured, Refused, StoreUnavailable."""
    pool = Pool(dsn, maximum=1, command_timeout_s=FIX_TIMEOUT_S)
    try:
        for statement in statements:
            async with pool.session() as session:
                await session.execute(f"SET SESSION max_statement_time = {FIX_TIMEOUT_S:.0f}")
                await session.execute(statement)
    finally:
        await pool.close()


def quoted(*names: str) -> str:
    """Return a qualified identifier, each part in backticks."""
    return ".".join("`" + name.replace("`", "``") + "`" for name in names)


def places(count: int) -> str:
    """Return `count` parameters, separated by commas."""
    return ", ".join(["%s"] * count)
