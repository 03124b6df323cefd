"""A bounded pool of asyncpg connections. Every error is one of `connectors.errors`. No SQL of a collection is here."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from connectors.errors import CrossfadeError, Misconfigured, Raised, Refused, StoreUnavailable, TransientError
from connectors.sql.address import parsed

Session: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"  # generic in the stubs only

CONNECT_TIMEOUT_S = 10.0
ACQUIRE_TIMEOUT_S = 15.0
# Only this timeout detects a half-open connection. No statement that a worker role runs takes this long.
COMMAND_TIMEOUT_S = 25.0
# An operator's statement may build an index.
FIX_TIMEOUT_S = 3600.0
# The text forms are those that `schemas.values` reads. Lock waits end before the caller gives up. Small queries are not
# compiled.
SERVER_SETTINGS = {
    "application_name": "crossfade",
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "extra_float_digits": "1",
    "lock_timeout": "10000",
    # A worker that died silently leaves no locks behind for longer than this.
    "idle_in_transaction_session_timeout": "20000",
    "jit": "off",
    # Backslashes in our statements are literal, whatever the database's setting is.
    "standard_conforming_strings": "on",
    # Rows that a policy would hide cause an error: taken as absent, they would be deleted from Qdrant.
    "row_security": "off",
}

# Changes that were reported as applied must survive a crash of the server. A stronger setting than this one is kept.
_DURABLE = {"synchronous_commit": "on"}

# Maps a SQLSTATE, whole or its class of two characters, to an error. The whole code takes precedence. A state that is
# not listed is refused: only errors that are known to pass are waited for. Source: PostgreSQL, Appendix A.
_STATES: dict[str, type[CrossfadeError]] = {
    "08": StoreUnavailable,
    "53": StoreUnavailable,
    "57P01": StoreUnavailable,
    "57P02": StoreUnavailable,
    "57P03": StoreUnavailable,
    "57P05": StoreUnavailable,
    "58": StoreUnavailable,  # the server's own disk and files
    "F0": StoreUnavailable,
    "25006": StoreUnavailable,  # a standby after a failover
    "25P03": TransientError,
    "25P04": TransientError,
    "40": TransientError,
    "40002": Refused,  # a constraint
    "55006": TransientError,
    "55P03": TransientError,
    "57000": TransientError,
    "57014": TransientError,
    "72000": TransientError,
    "428C9": Refused,
    "42804": Refused,
    "42846": Refused,
    "28": Misconfigured,
    "3D": Misconfigured,
    "3F": Misconfigured,
    "42": Misconfigured,
    "57P04": Misconfigured,
    "0A": Misconfigured,
}
# Internal errors that disappear when a concurrent change of the table's definition or of a row ends.
_PASSING = re.compile("tuple concurrently (updated|deleted)|cache lookup failed|could not open relation with OID")
_LOGIN = ("28", "3D", "57P04")

_QUOTED = re.compile(r'".*"', re.DOTALL)
_FUNCTION = re.compile(r"PL/\w+ function ([\w.]+)\(.*?\) line (\d+)")


def mapped(error: BaseException) -> CrossfadeError:
    """Return the port error for a driver error. Its message contains no value of a document."""
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return TransientError("the table changed while a statement was prepared")
    if isinstance(error, asyncpg.PostgresError):
        return _of_server(error)
    if isinstance(error, (asyncpg.DataError, UnicodeError)):
        return Refused("a value that the database has no form for")
    if isinstance(error, (asyncpg.InterfaceError, OSError, TimeoutError, RuntimeError)):
        return StoreUnavailable(f"PostgreSQL does not answer ({type(error).__name__})")
    return TransientError(f"{type(error).__name__} in the PostgreSQL driver")


def _of_server(error: asyncpg.PostgresError) -> CrossfadeError:
    state = str(getattr(error, "sqlstate", None) or "XX000")
    kind = _STATES.get(state) or _STATES.get(state[:2]) or Refused
    if state == "XX000" and _PASSING.search(str(error)):
        kind = TransientError
    raised = getattr(error, "server_source_function", None) == "exec_stmt_raise" or state not in _KNOWN
    if raised or state.startswith("P0"):
        # Whatever state the function chose, the database is available and the configuration is right.
        kind = Raised if issubclass(kind, TransientError) else Refused
        return kind(f"{state}: raised by {_function(error)}; its message is in the database's log")
    return kind(reason(state, str(error)))


def _known(base: type[BaseException]) -> set[str]:
    states = {str(getattr(base, "sqlstate", None))}
    return states.union(*(_known(one) for one in base.__subclasses__()))


_KNOWN = _known(asyncpg.PostgresError)


def _function(error: asyncpg.PostgresError) -> str:
    """Return the name of the function that raised an error. Its message may contain any value, so it is left out."""
    found = _FUNCTION.search(str(getattr(error, "context", None) or ""))
    return f"{found[1]}, line {found[2]}" if found else "a trigger or function"


def reason(state: str, message: str) -> str:
    """Return a message of the database itself, without the values that data exceptions may quote."""
    if state.startswith("22"):
        return f"{state}: {_QUOTED.sub('(value)', message).partition(chr(10))[0]}"
    return f"{state}: {message.partition(chr(10))[0]}"


def _while_running(error: BaseException) -> CrossfadeError:
    """Return the port error for a pool that was connected before: a login that is refused now is waited for."""
    state = str(getattr(error, "sqlstate", None) or "")
    found = mapped(error)
    return StoreUnavailable(f"the login is refused: {found}") if state.startswith(_LOGIN) else found


async def _connect(*arguments: Any, **named: Any) -> asyncpg.Connection[asyncpg.Record]:
    """Connect. If commits do not wait for the disk, connect again with a setting that makes them wait.

    A setting of the server, the database or the role can turn the wait off.
    """
    connection: asyncpg.Connection[asyncpg.Record]
    connection = await asyncpg.connect(*arguments, **named, server_settings=SERVER_SETTINGS)
    try:
        durable = await connection.fetchval("SELECT current_setting('synchronous_commit')") != "off"
    except BaseException:
        connection.terminate()
        raise
    if durable:
        return connection
    await connection.close()
    connection = await asyncpg.connect(*arguments, **named, server_settings=SERVER_SETTINGS | _DURABLE)
    return connection


class Pool:
    """At most four connections, opened when needed and closed by `close`."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    @classmethod
    async def open(
        cls, dsn: str, *, minimum: int = 1, maximum: int = 4, command_timeout_s: float = COMMAND_TIMEOUT_S
    ) -> Pool:
        """Connect. Raises Misconfigured (address, role, password, database), StoreUnavailable."""
        parsed(dsn, ("postgresql", "postgres"), "PostgreSQL")
        try:
            pool = await asyncpg.create_pool(
                dsn,
                connect=_connect,
                min_size=minimum,
                max_size=maximum,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=command_timeout_s,
            )
        except (ValueError, asyncpg.ClientConfigurationError):
            # The driver's message may quote any part of the address.
            raise Misconfigured(
                "not a PostgreSQL address, or a parameter in it that the driver does not know"
            ) from None
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise mapped(error) from None
        return cls(pool)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Lend a connection. A driver error inside is raised as a port error, without the driver's own text."""
        try:
            async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
                yield connection
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise _while_running(error) from None
        except (OSError, TimeoutError, UnicodeError, RuntimeError) as error:
            # RuntimeError: uvloop refuses to write to a connection that the server reset.
            raise mapped(error) from None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """Lend a connection in a READ COMMITTED transaction that ends with the block."""
        async with self.session() as connection, connection.transaction(isolation="read_committed"):
            yield connection

    async def close(self) -> None:
        """Close the connections. Connections in use get five seconds to finish."""
        try:
            await asyncio.wait_for(self._pool.close(), timeout=5.0)
        except (TimeoutError, asyncpg.InterfaceError, OSError):
            self._pool.terminate()


async def execute_all(dsn: str, statements: Sequence[str]) -> None:
    """Execute statements one after the other, each in its own transaction. Raises as `Pool.open` does, and Refused."""
    pool = await Pool.open(dsn, maximum=1, command_timeout_s=FIX_TIMEOUT_S)
    try:
        for statement in statements:
            async with pool.session() as connection:
                await connection.execute(statement)
    finally:
        await pool.close()


def quoted(*names: str) -> str:
    """Return a qualified identifier, each part in double quotes."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)
