"""Every error class of the SQL drivers has a port error. The contract tests provoke those that can be provoked."""

from __future__ import annotations

import re

import asyncpg
import pymysql
import pytest
from pymysql.constants import ER

from connectors.errors import CrossfadeError, Misconfigured, PermanentError, Refused, StoreUnavailable, TransientError
from connectors.sql.mariadb.pool import mapped as mariadb_mapped
from connectors.sql.postgres.pool import mapped as postgres_mapped


def every_class(base: type[BaseException]) -> list[type[BaseException]]:
    return [base, *(found for one in base.__subclasses__() for found in every_class(one))]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (asyncpg.TooManyConnectionsError("x"), StoreUnavailable),
        (asyncpg.AdminShutdownError("x"), StoreUnavailable),
        (asyncpg.CannotConnectNowError("x"), StoreUnavailable),
        (asyncpg.DiskFullError("x"), StoreUnavailable),
        (asyncpg.ReadOnlySQLTransactionError("x"), StoreUnavailable),
        (asyncpg.ConnectionDoesNotExistError("x"), StoreUnavailable),
        (asyncpg.InterfaceError("x"), StoreUnavailable),
        (ConnectionResetError("x"), StoreUnavailable),
        (TimeoutError("x"), StoreUnavailable),
        (RuntimeError("the handler is closed"), StoreUnavailable),  # uvloop, after a reset
        (asyncpg.SerializationError("x"), TransientError),
        (asyncpg.DeadlockDetectedError("x"), TransientError),
        (asyncpg.LockNotAvailableError("x"), TransientError),
        (asyncpg.QueryCanceledError("x"), TransientError),
        (asyncpg.InvalidCachedStatementError("x"), TransientError),
        (asyncpg.InternalServerError("tuple concurrently updated"), TransientError),
        (asyncpg.InternalServerError("cache lookup failed for relation 5"), TransientError),
        (asyncpg.InternalServerError("x"), Refused),
        (asyncpg.UniqueViolationError("x"), Refused),
        (asyncpg.ProgramLimitExceededError("x"), Refused),
        (asyncpg.WithCheckOptionViolationError("x"), Refused),
        (asyncpg.GeneratedAlwaysError("x"), Refused),
        (asyncpg.DataError("x"), Refused),
        (asyncpg.InsufficientPrivilegeError("x"), Misconfigured),
        (asyncpg.InvalidPasswordError("x"), Misconfigured),
        (asyncpg.UndefinedColumnError("x"), Misconfigured),
        (asyncpg.InvalidCatalogNameError("x"), Misconfigured),
    ],
)
def test_errors_of_postgresql(error: Exception, expected: type[CrossfadeError]) -> None:
    assert type(postgres_mapped(error)) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (pymysql.err.OperationalError(1040, "x"), StoreUnavailable),
        (pymysql.err.OperationalError(1053, "x"), StoreUnavailable),
        (pymysql.err.OperationalError(2003, "x"), StoreUnavailable),
        (pymysql.err.OperationalError(2013, "x"), StoreUnavailable),
        (pymysql.err.OperationalError(1290, "x"), StoreUnavailable),
        (pymysql.err.InterfaceError("not connected"), StoreUnavailable),
        (ConnectionResetError("x"), StoreUnavailable),
        (RuntimeError("the handler is closed"), StoreUnavailable),  # uvloop, after a reset
        (pymysql.err.OperationalError(1205, "x"), TransientError),
        (pymysql.err.OperationalError(1213, "x"), TransientError),
        (pymysql.err.OperationalError(1969, "x"), TransientError),
        (pymysql.err.OperationalError(1114, "x"), TransientError),
        (pymysql.err.InternalError(6, "x"), StoreUnavailable),
        (pymysql.err.OperationalError(1030, "Got error 28 'No space left on device' from storage"), StoreUnavailable),
        (pymysql.err.OperationalError(1030, "Got error 127 'Record file is crashed'"), Refused),
        (pymysql.err.OperationalError(1267, "Illegal mix of collations"), Refused),
        (pymysql.err.OperationalError(1644, "x"), Refused),
        (pymysql.err.OperationalError(30001, "x"), Refused),
        (pymysql.err.IntegrityError(1062, "x"), Refused),
        (pymysql.err.OperationalError(4025, "x"), Refused),
        (pymysql.err.DataError(1406, "x"), Refused),
        (pymysql.err.OperationalError(1153, "x"), Refused),
        (pymysql.err.OperationalError(1045, "x"), Misconfigured),
        (pymysql.err.OperationalError(1049, "x"), Misconfigured),
        (pymysql.err.ProgrammingError(1146, "x"), Misconfigured),
        (pymysql.err.OperationalError(1054, "x"), Misconfigured),
    ],
)
def test_errors_of_mariadb(error: Exception, expected: type[CrossfadeError]) -> None:
    assert type(mariadb_mapped(error)) is expected


# Errors that are known to be transient. All others are caused by the document or the configuration.
PASSING_STATES = re.compile(
    "08...|53...|58...|F0...|57P0[1235]|57000|57014|25006|25P0[34]|400[0-9][013]|40P01|55006|55P03|72000"
)
PASSING_NUMBERS = {
    *("DISK_FULL", "CHECKREAD", "ERROR_ON_CLOSE", "ERROR_ON_READ", "ERROR_ON_WRITE", "OUTOFMEMORY", "CON_COUNT_ERROR"),
    *("OUT_OF_SORTMEMORY", "OUT_OF_RESOURCES", "BAD_HOST_ERROR", "HANDSHAKE_ERROR", "UNKNOWN_COM_ERROR", "SIGNAL"),
    *("SERVER_SHUTDOWN", "NORMAL_SHUTDOWN", "SHUTDOWN_COMPLETE", "FORCING_CLOSE", "IPSOCK_ERROR", "HOST_IS_BLOCKED"),
    *("TABLE_NOT_LOCKED_FOR_WRITE", "RECORD_FILE_FULL", "CANT_CREATE_THREAD", "ABORTING_CONNECTION"),
    *("NET_READ_ERROR_FROM_PIPE", "NET_FCNTL_ERROR", "NET_PACKETS_OUT_OF_ORDER", "NET_UNCOMPRESS_ERROR"),
    *("NET_READ_ERROR", "NET_READ_INTERRUPTED", "NET_ERROR_ON_WRITE", "NET_WRITE_INTERRUPTED", "ERROR_DURING_COMMIT"),
    *("NEW_ABORTING_CONNECTION", "TOO_MANY_USER_CONNECTIONS", "LOCK_WAIT_TIMEOUT", "LOCK_TABLE_FULL", "LOCK_DEADLOCK"),
    *("CANT_UPDATE_WITH_READLOCK", "USER_LIMIT_REACHED", "OPTION_PREVENTS_STATEMENT", "GET_TEMPORARY_ERRMSG"),
    *("QUERY_INTERRUPTED", "TABLE_DEF_CHANGED", "STATEMENT_TIMEOUT", "QUERY_TIMEOUT"),
}


@pytest.mark.parametrize("kind", [one for one in every_class(asyncpg.PostgresError) if getattr(one, "sqlstate", None)])
def test_only_a_state_of_postgresql_that_is_known_to_pass_is_waited_for(kind: type[asyncpg.PostgresError]) -> None:
    passing = bool(PASSING_STATES.fullmatch(str(kind.sqlstate))) or kind is asyncpg.InvalidCachedStatementError
    assert isinstance(postgres_mapped(kind("x")), TransientError if passing else PermanentError)


@pytest.mark.parametrize(("name", "number"), [(n, v) for n, v in vars(ER).items() if isinstance(v, int)])
def test_only_a_number_of_mariadb_that_is_known_to_pass_is_waited_for(name: str, number: int) -> None:
    expected = TransientError if name in PASSING_NUMBERS else PermanentError
    assert isinstance(mariadb_mapped(pymysql.err.OperationalError(number, "x")), expected)


@pytest.mark.parametrize("state", ["45000", "APP01", "U0001", "99999", "XX000"])
def test_a_state_that_nobody_knows_is_refused_and_names_the_function(state: str) -> None:
    error = asyncpg.PostgresError("the title 'secret' is taken")
    setattr(error, "sqlstate", state)  # noqa: B010 - a class variable to mypy
    error.server_source_function = "exec_stmt_raise"
    error.context = "PL/pgSQL function app.no_titles() line 3 at RAISE"
    found = postgres_mapped(error)
    assert type(found) is Refused
    assert str(found) == f"{state}: raised by app.no_titles, line 3; its message is in the database's log"


def test_what_a_function_raises_under_a_state_of_the_database_is_not_repeated() -> None:
    error = asyncpg.CheckViolationError("secret")
    error.server_source_function = "exec_stmt_raise"
    assert "secret" not in str(postgres_mapped(error))
    for number in (1644, 30001, 5000, 65535):
        assert "secret" not in str(mariadb_mapped(pymysql.err.OperationalError(number, "secret")))


def test_no_error_class_of_the_drivers_is_left_out() -> None:
    for one in every_class(asyncpg.PostgresError) + every_class(asyncpg.InterfaceError):
        assert isinstance(postgres_mapped(one("x")), CrossfadeError)
    for one in every_class(pymysql.err.MySQLError):
        for arguments in ((9999, "x"), ("x",), ()):
            assert isinstance(mariadb_mapped(one(*arguments)), CrossfadeError)


@pytest.mark.parametrize(
    "message",
    [
        'invalid input syntax for type integer: "se"cret"',
        'value "secret" is out of range for type integer',
        'invalid input syntax for type json\nDETAIL: "secret"',
    ],
)
def test_what_postgresql_quotes_of_a_value_is_left_out(message: str) -> None:
    assert "cret" not in str(postgres_mapped(asyncpg.InvalidTextRepresentationError(message)))


@pytest.mark.parametrize(
    "message",
    [
        "Duplicate entry 'it's secret' for key 'slug'",
        "Incorrect integer value: 'it's secret' for column `d`.`t`.`c` at row 1",
        "Truncated incorrect DOUBLE value: 'it's secret'",
    ],
)
def test_what_mariadb_quotes_of_a_value_is_left_out(message: str) -> None:
    reported = str(mariadb_mapped(pymysql.err.DataError(1366, message)))
    assert "secret" not in reported
    assert "slug" in reported or "`c`" in reported or "DOUBLE" in reported


def test_an_apostrophe_hides_no_address() -> None:
    message = "Can't connect to MySQL server on '127.0.0.1' ([Errno 111] Connect call failed ('127.0.0.1', 3306))"
    reason = str(mariadb_mapped(pymysql.err.OperationalError(2003, message)))
    assert reason.startswith("2003: Can't connect to MySQL server on '127.0.0.1'")


def test_names_of_tables_are_no_values() -> None:
    error = pymysql.err.ProgrammingError(1146, "Table 'app.crossfade_meta' doesn't exist")
    assert str(mariadb_mapped(error)) == "1146: Table 'app.crossfade_meta' doesn't exist"
    error = pymysql.err.DataError(1366, "Incorrect string value: 'secret' for column 'app'.'t'.'title' at row 1")
    assert "secret" not in str(mariadb_mapped(error))
