"""Every error class of the SQL drivers has a port error; those that can be provoked are, in the contract tests."""

from __future__ import annotations

import asyncpg
import pymysql
import pytest

from connectors.errors import CrossfadeError, Misconfigured, Refused, StoreUnavailable, TransientError
from connectors.mariadb.pool import mapped as mariadb_mapped
from connectors.postgres.pool import mapped as postgres_mapped


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
        (asyncpg.InternalServerError("x"), TransientError),
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
        (pymysql.err.InternalError(6, "x"), TransientError),
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
    told = str(mariadb_mapped(pymysql.err.DataError(1366, message)))
    assert "secret" not in told
    assert "slug" in told or "`c`" in told or "DOUBLE" in told
