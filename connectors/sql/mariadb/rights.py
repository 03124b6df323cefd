"""Checks which privileges a user lacks in MariaDB: on a collection's table, and on crossfade's own. Reads only."""

from __future__ import annotations

import re

import pymysql

from connectors.sql.checks import OWN_TABLES, error
from connectors.sql.mariadb.pool import Session, quoted
from domain.legacy import Diagnostic, Sql

_NAMES = "SELECT TABLE_NAME AS name FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s"
# Errors for a denied access: to a database, for a command on a table, for a command on a column, for a privilege.
DENIED = (1044, 1142, 1143, 1227)
_GRANT = re.compile(r"GRANT (.+?) ON (\*|`(?:[^`]|``)*`)\.\* TO ")


async def rights_findings(session: Session, name: str, schema: str, table: str) -> list[Diagnostic]:
    """Return what the user may not do with the table and with crossfade's own tables.

    EXPLAIN checks the privileges: no statement is executed.
    """
    present = {row["name"] for row in await session.fetch(_NAMES, (schema,))}
    findings: list[Diagnostic] = []
    for one in (table, *OWN_TABLES):
        reference = quoted(schema, one)
        if one in present and not await _may_write(session, reference):
            remedy = Sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {reference} TO {await account_of(session)}")
            findings.append(error(name, f"the user may not read and write {schema}.{one}", remedy))
    missing = [one for one in OWN_TABLES if one not in present]
    if missing and not await _may_create(session, schema):
        remedy = Sql(
            f"GRANT CREATE, SELECT, INSERT, UPDATE, DELETE ON {quoted(schema)}.* TO {await account_of(session)}"
        )
        findings.append(error(name, f"the user may not create {', '.join(missing)} in {schema}", remedy))
    return findings


async def _may_write(session: Session, reference: str) -> bool:
    for statement in (
        f"SELECT 1 FROM {reference}",  # noqa: S608 - a quoted identifier
        f"INSERT INTO {reference} SELECT * FROM {reference}",  # noqa: S608 - a quoted identifier
        f"DELETE FROM {reference}",  # noqa: S608 - a quoted identifier
        f"UPDATE {reference} SET {quoted(await _first_column(session, reference))} = NULL",  # noqa: S608
    ):
        try:
            await session.fetch(f"EXPLAIN {statement}")
        except pymysql.err.MySQLError as refused:
            if refused.args[0] in DENIED:
                return False
    return True


async def _first_column(session: Session, reference: str) -> str:
    try:
        return str((await session.fetch(f"SHOW COLUMNS FROM {reference}"))[0]["Field"])
    except pymysql.err.MySQLError:
        return "id"


async def _may_create(session: Session, schema: str) -> bool:
    for row in await session.fetch("SHOW GRANTS"):
        grant = str(next(iter(row.values())))
        found = _GRANT.match(grant)
        if found is None or not {"CREATE", "ALL PRIVILEGES"} & set(found[1].split(", ")):
            continue
        if found[2] == "*" or _like(found[2][1:-1].replace("``", "`")).fullmatch(schema):
            return True
    return False


def _like(pattern: str) -> re.Pattern[str]:
    """Return the pattern of a GRANT (`%`, `_`, escaped by a backslash) as a regular expression."""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    return re.compile("".join({"%": ".*", "_": "."}.get(p, re.escape(p[-1])) for p in parts), re.DOTALL)


async def account_of(session: Session) -> str:
    """Return the account of the session in the form that a GRANT needs."""
    user = (await session.fetch("SELECT CURRENT_USER() AS name"))[0]["name"]
    return "@".join(f"'{part}'" for part in str(user).rsplit("@", 1))
