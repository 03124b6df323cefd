"""What only a database can do to the legacy side: locks, collations, other unique keys, outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import numpy as np
import pytest

from connectors.errors import CrossfadeError, Misconfigured, Refused, StoreUnavailable, TransientError
from connectors.sql.databases import open_legacy
from connectors.sql.postgres.pool import Pool
from domain.legacy import LegacyVerdict
from schemas.settings import EmbeddingColumn
from stack.layout import StackAddresses
from tests.contract.legacy_places import (
    DATABASES,
    DOCUMENTS,
    Place,
    Ports,
    content,
    deletion,
    fresh_place,
    legacy_ports,
    until_waiting,
    upsert,
)

pytestmark = pytest.mark.stack


@pytest.fixture(params=DATABASES)
async def place(request: pytest.FixtureRequest, stack: StackAddresses) -> AsyncIterator[Place]:
    async with fresh_place(request.param, stack) as made:
        yield made


@pytest.fixture(params=DATABASES)
async def ports(request: pytest.FixtureRequest, stack: StackAddresses) -> AsyncIterator[Ports]:
    async with legacy_ports(request.param, stack) as opened:
        yield opened


async def test_rows_waits_for_a_transaction_that_is_still_ending(ports: Ports) -> None:
    assert ports.place is not None
    await ports.table.apply([upsert("a", 1, content("old"))])
    async with ports.place.connection() as other:
        await other.execute("BEGIN")
        await other.execute(f"UPDATE {ports.place.schema}.documents SET title = 'new' WHERE id = 'a'")
        reading = asyncio.create_task(ports.table.rows(["a"]))
        await until_waiting(ports.place)
        assert not reading.done()
        assert await ports.table.existing(["a"]) == {"a"}
        await other.execute("COMMIT")
        assert (await reading)["a"].content.text["title"] == "new"


async def test_a_call_that_was_cancelled_leaves_the_pool_usable(ports: Ports) -> None:
    assert ports.place is not None
    await ports.table.apply([upsert("a", 1)])
    async with ports.place.connection() as other:
        await other.execute("BEGIN")
        await other.execute(f"UPDATE {ports.place.schema}.documents SET title = 'new' WHERE id = 'a'")
        for _ in range(6):  # more than the pool has connections
            writing = asyncio.create_task(ports.table.apply([upsert("a", 2)]))
            await until_waiting(ports.place)
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing
        await other.execute("ROLLBACK")
    assert (await ports.table.rows(["a"]))["a"].version == 1
    assert [outcome.verdict for outcome in await ports.table.apply([upsert("a", 2)])] == [LegacyVerdict.APPLIED]


async def test_other_columns_keep_their_values_and_new_rows_get_the_defaults(ports: Ports) -> None:
    assert ports.place is not None
    await ports.table.apply([upsert("a", 1), upsert("b", 1)])
    await ports.place.execute("UPDATE {t} SET note = 'mine' WHERE id = 'a'")
    await ports.table.apply([upsert("a", 2)])
    assert dict(await ports.place.fetch("SELECT id, note FROM {t}")) == {"a": "mine", "b": "kept"}


async def test_integer_keys_have_one_spelling_and_are_scanned_as_numbers(place: Place) -> None:
    await place.execute("CREATE TABLE {t} (id integer PRIMARY KEY, body text, crossfade_version bigint)")
    legacy = await open_legacy("documents", place.collection(text=("body",), metadata=(), tenant=None), place.dsn)
    await legacy.prepare()
    given = content().model_copy(update={"text": {"body": "b"}, "metadata": {}})
    ids = ["0", "2", "10", "-3", "007", "+1", "1.0", "x", "9999999999", "99999999999999999999"]
    outcomes = await legacy.table.apply([upsert(one, 1, given) for one in ids])
    applied = [one for one, outcome in zip(ids, outcomes, strict=True) if outcome.verdict is LegacyVerdict.APPLIED]
    assert applied == ["0", "2", "10", "-3"]
    assert set(await legacy.table.rows(ids)) == set(applied)
    assert [row.id for row in await legacy.bulk.scan_range(None, None, 10)] == ["-3", "0", "2", "10"]
    assert [row.id for row in await legacy.bulk.scan_range("0", None, 1)] == ["2"]
    await legacy.close()


async def test_keys_of_several_columns_are_written_read_and_scanned(place: Place) -> None:
    text = "text" if place.connector == "postgres" else "varchar(40)"
    await place.execute(
        f"CREATE TABLE {{t}} (shop {text} NOT NULL, number bigint NOT NULL, body text, crossfade_version bigint, "
        "PRIMARY KEY (shop, number))"
    )
    collection = place.collection(key=("shop", "number"), text=("body",), metadata=(), tenant=None)
    legacy = await open_legacy("documents", collection, place.dsn)
    await legacy.prepare()
    given = content().model_copy(update={"text": {"body": "b"}, "metadata": {}})
    ids = [f"{shop}/{number}" for shop in ("a", "a%2Fb", "b") for number in (-1, 2, 10)]
    await legacy.table.apply([upsert(one, 1, given) for one in reversed(ids)])
    seen: list[str] = []
    while page := await legacy.bulk.scan_range(seen[-1] if seen else None, None, 2):
        seen += [row.id for row in page]
    assert sorted(seen) == sorted(ids)
    await legacy.table.apply([deletion("a/2", 2), deletion("a", 2), deletion("a/2/3", 2)])
    assert await legacy.table.existing([*ids, "a", "a/2/3"]) == set(ids) - {"a/2"}
    await legacy.close()


async def test_a_key_that_the_collation_takes_for_another_is_refused_and_never_deletes_the_other(
    stack: StackAddresses,
) -> None:
    async with fresh_place("mariadb", stack) as place:
        await place.execute(DOCUMENTS["mariadb"].replace("utf8mb4_nopad_bin", "utf8mb4_general_ci"))
        legacy = await open_legacy("documents", place.collection(), place.dsn)
        await legacy.prepare()
        await legacy.table.apply([upsert("A", 1, content("upper"))])
        outcomes = await legacy.table.apply([upsert("a", 2), upsert("b", 2), upsert("B", 2), deletion("a ", 2)])
        verdicts = [outcome.verdict for outcome in outcomes]
        assert verdicts[0] is LegacyVerdict.REFUSED
        assert sorted(v.value for v in verdicts[1:3]) == ["applied", "refused"]
        assert verdicts[3] is LegacyVerdict.APPLIED
        assert await legacy.table.existing(["a", "A", "a "]) == {"A"}
        assert (await legacy.table.rows(["a", "A"]))["A"].content.text["title"] == "upper"
        seen: list[str] = []
        while page := await legacy.bulk.scan_range(seen[-1] if seen else None, None, 1):
            seen += [row.id for row in page]
        assert [one.lower() for one in seen] == ["a", "b"]
        await legacy.close()


EMBEDDINGS = [
    ("postgres", "pgvector", "vector(3)"),
    ("postgres", "json", "jsonb"),
    ("postgres", "json", "text"),
    ("postgres", "float32", "bytea"),
    ("mariadb", "json", "json"),
    ("mariadb", "json", "longtext"),
    ("mariadb", "float32", "blob"),
]


@pytest.mark.parametrize(("connector", "form", "sql_type"), EMBEDDINGS)
async def test_an_embedding_column_gives_back_the_same_float32(
    stack: StackAddresses, connector: str, form: str, sql_type: str
) -> None:
    async with fresh_place("postgres" if connector == "postgres" else "mariadb", stack) as place:
        await place.execute(
            f"CREATE TABLE {{t}} (id bigint PRIMARY KEY, body text, emb {sql_type}, crossfade_version bigint)"
        )
        column = EmbeddingColumn.model_validate({"column": "emb", "format": form})
        collection = place.collection(text=("body",), metadata=(), tenant=None, embedding=column)
        legacy = await open_legacy("documents", collection, place.dsn)
        await legacy.prepare()
        vector = np.asarray([0.1, -1e-7, 3.4028235e38], dtype="<f4").tobytes()
        plain = content().model_copy(update={"text": {"body": "b"}, "metadata": {}})
        given = plain.model_copy(update={"embedding": vector, "embedding_model": "m"})
        await legacy.table.apply([upsert("1", 1, given), upsert("2", 1, plain)])
        rows = await legacy.table.rows(["1", "2"])
        assert (rows["1"].content.embedding, rows["2"].content.embedding) == (vector, None)
        if form == "json":
            await place.execute("UPDATE {t} SET emb = '{\"no\": 1}' WHERE id = 1")
            assert (await legacy.table.rows(["1"]))["1"].content.embedding is None
        await legacy.close()


async def test_opening_says_what_is_missing(place: Place) -> None:
    with pytest.raises(Misconfigured, match="documents"):
        await open_legacy("documents", place.collection(), place.dsn)
    await place.execute("CREATE TABLE {t} (id bigint PRIMARY KEY, body text, crossfade_version bigint)")
    with pytest.raises(Misconfigured, match="title"):
        await open_legacy("documents", place.collection(), place.dsn)
    with pytest.raises(Misconfigured):
        await open_legacy("documents", place.collection(), "sqlite:///somewhere")


async def test_a_wrong_password_or_database_is_misconfigured_and_a_closed_port_is_unavailable(place: Place) -> None:
    await place.execute(DOCUMENTS[place.connector])
    head = place.dsn.rpartition("/")[0]
    with pytest.raises(Misconfigured):
        await open_legacy("documents", place.collection(), f"{head}/no_such_database")
    scheme = place.dsn.partition(":")[0]
    with pytest.raises(StoreUnavailable):
        await open_legacy("documents", place.collection(), f"{scheme}://nobody:nothing@127.0.0.1:9/none")


async def test_a_ledger_that_was_not_prepared_is_misconfigured(place: Place) -> None:
    await place.execute(DOCUMENTS[place.connector])
    legacy = await open_legacy("documents", place.collection(), place.dsn)
    with pytest.raises(Misconfigured):
        await legacy.table.apply([upsert("a", 1)])
    with pytest.raises(Misconfigured):
        await legacy.ledger.read(["a"])
    await legacy.close()


async def test_what_a_trigger_raises_is_a_refusal_without_its_words(ports: Ports) -> None:
    assert ports.place is not None
    schema = ports.place.schema
    if ports.adapter == "postgres":
        await ports.place.execute(
            f"CREATE FUNCTION {schema}.no() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN IF NEW.title = 'secret' THEN RAISE EXCEPTION 'not %', NEW.title; END IF; RETURN NEW; END $$",
            f"CREATE TRIGGER no BEFORE INSERT ON {{t}} FOR EACH ROW EXECUTE FUNCTION {schema}.no()",
        )
    else:
        await ports.place.execute(
            f"CREATE TRIGGER {schema}.no BEFORE INSERT ON {{t}} FOR EACH ROW "
            "IF NEW.title = 'secret' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not secret'; END IF"
        )
    good, bad = await ports.table.apply([upsert("a", 1), upsert("b", 1, content("secret"))])
    assert (good.verdict, bad.verdict) == (LegacyVerdict.APPLIED, LegacyVerdict.REFUSED)
    assert "secret" not in str(bad.reason)


async def test_nul_in_text_is_the_databases_refusal_where_it_has_no_form_for_it(ports: Ports) -> None:
    good, nul = await ports.table.apply([upsert("a", 1), upsert("b", 1, content("nul \x00"))])
    assert good.verdict is LegacyVerdict.APPLIED
    expected = LegacyVerdict.REFUSED if ports.adapter == "postgres" else LegacyVerdict.APPLIED
    assert nul.verdict is expected


async def test_the_victim_of_a_deadlock_is_a_transient_error_and_has_done_nothing(ports: Ports) -> None:
    assert ports.place is not None
    place = ports.place
    await ports.table.apply([upsert("a", 1), upsert("b", 1)])
    # The application holds row b and waits for the ledger row of a. Our transaction holds that row and waits for row b.
    async with place.connection() as other:
        await other.execute("BEGIN")
        if place.connector == "postgres":
            await other.execute("SET LOCAL deadlock_timeout = '1min'")  # ours checks first, and is the victim
        else:
            # InnoDB ends the transaction that changed the fewest rows.
            await other.execute(f"CREATE TABLE {place.schema}.many (n bigint)")
            await other.execute("BEGIN")
            await other.execute(f"INSERT INTO {place.schema}.many SELECT seq FROM seq_1_to_1000")
        await other.execute(f"UPDATE {place.schema}.documents SET note = 'n' WHERE id = 'b'")
        ours = asyncio.create_task(ports.table.apply([upsert("a", 2), upsert("b", 2)]))
        await until_waiting(place)
        theirs = asyncio.create_task(
            other.execute(f"UPDATE {place.schema}.crossfade_ledger SET chunk_count = 1 WHERE document_id = 'a'")
        )
        with pytest.raises(TransientError) as caught:
            await ours
        assert not isinstance(caught.value, StoreUnavailable)
        await theirs
        await other.execute("COMMIT")
    assert (await ports.ledger.read(["a"]))["a"].legacy_version == 1
    assert {o.verdict for o in await ports.table.apply([upsert("a", 2), upsert("b", 2)])} == {LegacyVerdict.APPLIED}


async def test_a_connection_that_the_server_ends_is_unavailable_and_the_next_call_works(ports: Ports) -> None:
    assert ports.place is not None
    place = ports.place
    await ports.table.apply([upsert("a", 1)])
    async with place.connection() as other:
        await other.execute("BEGIN")
        await other.execute(f"UPDATE {place.schema}.documents SET note = 'n' WHERE id = 'a'")
        ours = asyncio.create_task(ports.table.apply([upsert("a", 2)]))
        await until_waiting(place)
        await end_waiting_connections(place)
        with pytest.raises(StoreUnavailable):
            await ours
        await other.execute("ROLLBACK")
    assert (await ports.table.rows(["a"]))["a"].version == 1
    assert {o.verdict for o in await ports.table.apply([upsert("a", 2)])} == {LegacyVerdict.APPLIED}


async def end_waiting_connections(place: Place) -> None:
    async with place.connection() as connection:
        if place.connector == "postgres":
            await connection.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE wait_event_type = 'Lock' AND query LIKE '%{place.schema}%'"
            )
            return
        found = await connection.fetch(
            "SELECT trx_mysql_thread_id FROM information_schema.INNODB_TRX "
            f"WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE '%{place.schema}%'"
        )
        for (thread,) in found:
            await connection.execute(f"KILL CONNECTION {thread}")


async def test_a_closed_connector_is_unavailable(ports: Ports) -> None:
    await ports.table.close()
    with pytest.raises(StoreUnavailable):
        await ports.table.existing(["a"])


async def test_a_scan_cannot_go_on_after_what_is_no_key(place: Place) -> None:
    await place.execute("CREATE TABLE {t} (id integer PRIMARY KEY, body text, crossfade_version bigint)")
    legacy = await open_legacy("documents", place.collection(text=("body",), metadata=(), tenant=None), place.dsn)
    with pytest.raises(Refused):
        await legacy.bulk.scan_range("x", None, 10)
    await legacy.close()


async def test_a_table_that_went_away_is_misconfigured(ports: Ports) -> None:
    assert ports.place is not None
    await ports.table.apply([upsert("a", 1)])
    await ports.place.execute("DROP TABLE {t}")
    with pytest.raises(CrossfadeError) as caught:
        await ports.table.rows(["a"])
    assert isinstance(caught.value, (Misconfigured, TransientError))
    with pytest.raises(Misconfigured):
        await ports.table.rows(["a"])


async def test_two_workers_preparing_at_once_both_succeed(place: Place) -> None:
    await place.execute(DOCUMENTS[place.connector])
    opened = [await open_legacy("documents", place.collection(), place.dsn) for _ in range(3)]
    await asyncio.gather(*(legacy.prepare() for legacy in opened))
    await opened[0].ledger.set_meta("partition_epoch", 3)
    assert await opened[1].ledger.get_meta("partition_epoch") == 3
    await asyncio.gather(*(legacy.close() for legacy in opened))


async def test_a_batch_with_documents_of_a_megabyte_is_written_in_parts(ports: Ports) -> None:
    assert ports.place is not None
    if ports.adapter == "mariadb":
        await ports.place.execute("ALTER TABLE {t} MODIFY body longtext NOT NULL")
    long = [replace(upsert(f"d{n}", 1), content=content(body="'x\\" * 300_000)) for n in range(24)]
    assert {o.verdict for o in await ports.table.apply(long)} == {LegacyVerdict.APPLIED}
    assert len((await ports.table.rows(["d23"]))["d23"].content.text["body"] or "") == 900_000


@pytest.mark.parametrize(("configured", "used"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")])
async def test_what_is_written_survives_a_crash_of_the_server_whatever_is_configured_for_the_role(
    stack: StackAddresses, configured: str, used: str
) -> None:
    role, parts = f"durable_{uuid4().hex[:8]}", urlsplit(stack.postgres)
    administrator = await asyncpg.connect(stack.postgres)
    try:
        await administrator.execute(f"create role {role} login password 'p'")
        await administrator.execute(f"alter role {role} set synchronous_commit = {configured}")
        pool = await Pool.open(urlunsplit(parts._replace(netloc=f"{role}:p@{parts.hostname}:{parts.port}")))
        async with pool.session() as session:
            assert await session.fetchval("select current_setting('synchronous_commit')") == used
            # This also holds for a connection that is opened later, when another value is configured.
            await administrator.execute(f"alter role {role} set synchronous_commit = off")
            async with pool.session() as later:
                assert await later.fetchval("select current_setting('synchronous_commit')") == "on"
        await pool.close()
    finally:
        await administrator.execute(f"drop role {role}")
        await administrator.close()
