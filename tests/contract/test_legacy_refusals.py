"""A database error about one document refuses that document. A login that is refused later is a transient error."""

from __future__ import annotations

import pytest

from connectors.errors import Misconfigured, TransientError
from connectors.sql.checks import OWN_TABLES
from connectors.sql.databases import open_legacy
from domain.legacy import LegacyVerdict
from stack.layout import StackAddresses
from tests.contract.legacy_places import (
    DATABASES,
    DOCUMENTS,
    Place,
    content,
    deletion,
    fresh_place,
    legacy_ports,
    upsert,
)

pytestmark = pytest.mark.stack
APPLIED, REFUSED = LegacyVerdict.APPLIED, LegacyVerdict.REFUSED


POSTGRES = {
    "RAISE EXCEPTION 'no secret' USING ERRCODE = 'APP01'": "APP01",
    "RAISE EXCEPTION 'no secret' USING ERRCODE = '45000'": "45000",
    "RAISE EXCEPTION 'no secret' USING ERRCODE = '23514'": "23514",
    "RAISE EXCEPTION 'no secret' USING ERRCODE = '40001'": "40001",
    "RAISE EXCEPTION 'no secret' USING ERRCODE = '57P01'": "57P01",
    "RAISE EXCEPTION 'no secret' USING ERRCODE = '42501'": "42501",
    "PERFORM no_such_function(NEW.title)": "42883",
    "PERFORM 1 FROM no_such_table": "42P01",
    "PERFORM 1 / (NEW.year - NEW.year + 0 * length(NEW.title))": "22012",
}
MARIADB = {
    "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no secret'": "1644",
    "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 30001, MESSAGE_TEXT = 'no secret'": "30001",
    "SIGNAL SQLSTATE 'AB123' SET MYSQL_ERRNO = 5000, MESSAGE_TEXT = 'no secret'": "5000",
    "SET @x = no_such_function(NEW.title)": "1305",
    "INSERT INTO no_such_table VALUES (1)": "1146",
    "SET @x = _utf8mb4'a' COLLATE utf8mb4_bin = _utf8mb4'b' COLLATE utf8mb4_general_ci": "1267",
    "CALL mysql.no_such_procedure(1)": "1305",
}
CASES = [("postgres", *one) for one in POSTGRES.items()] + [("mariadb", *one) for one in MARIADB.items()]


@pytest.mark.parametrize(("adapter", "statement", "code"), CASES)
async def test_what_a_trigger_fails_with_is_the_documents_refusal_and_the_others_are_written(
    stack: StackAddresses, adapter: str, statement: str, code: str
) -> None:
    async with legacy_ports(adapter, stack) as ports:
        assert ports.place is not None
        schema = ports.place.schema
        if adapter == "postgres":
            await ports.place.execute(
                f"CREATE FUNCTION {schema}.no() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN IF NEW.title = 'secret' THEN {statement}; END IF; RETURN NEW; END $$",
                f"CREATE TRIGGER no BEFORE INSERT ON {{t}} FOR EACH ROW EXECUTE FUNCTION {schema}.no()",
            )
        else:
            await ports.place.execute(
                f"CREATE TRIGGER {schema}.no BEFORE INSERT ON {{t}} FOR EACH ROW "
                f"BEGIN IF NEW.title = 'secret' THEN {statement}; END IF; END"
            )
        changes = [upsert(f"d{n}", 1, content("secret", year=1) if n == 3 else content()) for n in range(6)]
        outcomes = await ports.table.apply(changes)
        assert [o.verdict for o in outcomes] == [REFUSED if n == 3 else APPLIED for n in range(6)]
        assert (outcomes[3].reason or "").startswith(code)
        assert "secret" not in (outcomes[3].reason or "")
        assert (await ports.ledger.read(["d3"]))["d3"].refused_version == 1


async def end_sessions(place: Place, role: str) -> None:
    async with place.connection() as connection:
        if place.connector == "postgres":
            await connection.fetch(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")
        else:
            await connection.execute(f"KILL USER {role}")


@pytest.mark.parametrize("connector", DATABASES)
async def test_a_password_that_was_changed_is_waited_for_and_comes_back(stack: StackAddresses, connector: str) -> None:
    async with fresh_place("postgres" if connector == "postgres" else "mariadb", stack) as place:
        await place.execute(DOCUMENTS[place.connector])
        role, database = place.schema, place.dsn.rpartition("/")[2]
        if connector == "postgres":
            await place.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'one' SUPERUSER")
            change = f"ALTER ROLE {role} LOGIN PASSWORD '{{}}'"
        else:
            await place.execute(f"GRANT ALL ON *.* TO {role}@'%' IDENTIFIED BY 'one'")
            change = f"ALTER USER {role}@'%' IDENTIFIED BY '{{}}'"
        scheme, address = place.dsn.partition(":")[0], place.dsn.rpartition("@")[2].rpartition("/")[0]
        dsn = f"{scheme}://{role}:one@{address}/{database}"
        legacy = await open_legacy("documents", place.collection(), dsn)
        try:
            await legacy.prepare()
            await place.execute(change.format("two"))
            await end_sessions(place, role)
            for _ in range(3):
                with pytest.raises(TransientError):
                    await legacy.table.apply([upsert("a", 1)])
            await place.execute(change.format("one"))
            assert [o.verdict for o in await legacy.table.apply([upsert("a", 1)])] == [APPLIED]
        finally:
            await legacy.close()
            end = (f"REASSIGN OWNED BY {role} TO CURRENT_USER", f"DROP ROLE {role}")
            await place.execute(*(end if connector == "postgres" else (f"DROP USER {role}@'%'",)))


@pytest.mark.parametrize("adapter", DATABASES)
async def test_a_table_that_cannot_be_written_for_a_while_refuses_no_document(
    stack: StackAddresses, adapter: str
) -> None:
    async with legacy_ports(adapter, stack) as ports:
        assert ports.place is not None
        away = f"{ports.place.schema}.away"
        if adapter == "postgres":
            gone, back = "ALTER TABLE {t} RENAME TO away", f"ALTER TABLE {away} RENAME TO documents"
        else:
            gone, back = f"RENAME TABLE {{t}} TO {away}", f"RENAME TABLE {away} TO {{t}}"
        changes = [upsert(f"d{n}", 1, content()) for n in range(4)]
        await ports.place.execute(gone)
        for some in (changes, changes[:1]):
            with pytest.raises(Misconfigured):
                await ports.table.apply(some)
        await ports.place.execute(back)
        assert [o.verdict for o in await ports.table.apply(changes)] == [APPLIED] * 4


@pytest.mark.parametrize("adapter", DATABASES)
async def test_a_right_that_was_revoked_is_waited_for_and_refuses_no_document(
    stack: StackAddresses, adapter: str
) -> None:
    async with legacy_ports(adapter, stack) as ports:
        place = ports.place
        assert place is not None
        user = f"poor_{place.schema[-8:]}"
        account = user if adapter == "postgres" else f"{user}@'%'"
        host, scheme = place.dsn.rpartition("@")[2].partition("/")[0], place.dsn.partition(":")[0]
        database, made = place.schema, [f"CREATE USER {account} IDENTIFIED BY 'p'"]
        if adapter == "postgres":
            database = place.dsn.rpartition("/")[2]
            made = [f"CREATE ROLE {user} LOGIN PASSWORD 'p'", f"GRANT USAGE ON SCHEMA {place.schema} TO {user}"]
        own = [f"{place.schema}.{name}" for name in OWN_TABLES]
        granted = [f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {account}" for table in ("{t}", *own)]
        await place.execute(*made, *granted)
        poor = await open_legacy("documents", place.collection(), f"{scheme}://{user}:p@{host}/{database}")
        cases = (("INSERT", "{t}"), ("UPDATE", "{t}"), ("INSERT", own[0]), ("DELETE", "{t}"))
        try:
            for version, (right, table) in enumerate(cases, 1):
                change = deletion if right == "DELETE" else upsert
                changes = [change(f"d{n}", version) for n in range(3)]
                await place.execute(f"REVOKE {right} ON {table} FROM {account}")
                for some in (changes, changes[:1]):
                    with pytest.raises(Misconfigured):
                        await poor.table.apply(some)
                await place.execute(f"GRANT {right} ON {table} TO {account}")
                assert [o.verdict for o in await poor.table.apply(changes)] == [APPLIED] * 3
        finally:
            await poor.close()
            end = (f"DROP OWNED BY {user}", f"DROP ROLE {user}")
            await place.execute(*(end if adapter == "postgres" else (f"DROP USER {account}",)))


@pytest.mark.parametrize("column", ["body", "slug"])
async def test_a_document_that_no_packet_holds_is_refused_and_the_others_are_written(
    stack: StackAddresses, column: str
) -> None:
    wider = "ALTER TABLE {t} MODIFY body longtext NOT NULL, DROP INDEX slug, MODIFY slug longtext"
    async with legacy_ports("mariadb", stack, wider) as ports:
        assert ports.place is not None
        ((packet_bytes,),) = await ports.place.fetch("SELECT @@global.max_allowed_packet")
        # Each of these characters takes two bytes in a statement.
        long = "'" * (int(packet_bytes) // 2)
        given = content(body=long) if column == "body" else content(slug=long)
        first, second, third = await ports.table.apply([upsert("a", 1), upsert("b", 1, given), upsert("c", 1)])
        assert (first.verdict, second.verdict, third.verdict) == (APPLIED, REFUSED, APPLIED)
        assert "max_allowed_packet of the server is" in str(second.reason)
        assert await ports.table.existing(["a", "b", "c"]) == {"a", "c"}


async def test_half_a_pair_of_surrogates_keeps_no_other_row_from_being_read(stack: StackAddresses) -> None:
    async with legacy_ports("mariadb", stack) as ports:
        assert ports.place is not None
        await ports.place.execute(
            "INSERT INTO {t} (id, title, body) VALUES ('a', 'sound', 'b'), "
            "('b', CONCAT('x', _utf8mb4 X'EDA0BDEDB880', 'y'), 'b')"
        )
        for _ in range(5):
            rows = await ports.table.rows(["a", "b"])
            assert {row.content.text["title"] for row in rows.values()} == {"sound", "x\ufffd\ufffdy"}
