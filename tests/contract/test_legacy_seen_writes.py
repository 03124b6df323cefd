"""A write counts as applied only if its row was seen afterwards. Partial writes are tested here, too.

If the database stored something other than what was written, the write is refused or the stored row is followed.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from connectors.errors import Misconfigured
from connectors.sql.databases import open_legacy
from connectors.sql.mariadb import pool as mariadb_pool
from domain.legacy import LegacyChange, LegacyVerdict
from schemas.content import Content
from schemas.settings import EmbeddingColumn
from stack.layout import StackAddresses
from tests.contract.legacy_places import ADAPTERS, DATABASES, Place, Ports, content, fresh_place, legacy_ports, upsert
from tests.contract.legacy_places import deletion as removal

pytestmark = pytest.mark.stack
APPLIED, REFUSED = LegacyVerdict.APPLIED, LegacyVerdict.REFUSED


@pytest.fixture(params=ADAPTERS)
async def ports(request: pytest.FixtureRequest, stack: StackAddresses) -> AsyncIterator[Ports]:
    async with legacy_ports(request.param, stack) as opened:
        yield opened


@pytest.fixture(params=DATABASES)
async def place(request: pytest.FixtureRequest, stack: StackAddresses) -> AsyncIterator[Place]:
    async with fresh_place(request.param, stack) as made:
        yield made


@pytest.fixture
async def postgres(stack: StackAddresses) -> AsyncIterator[Ports]:
    async with legacy_ports("postgres", stack) as opened:
        yield opened


async def trigger(ports: Ports, when: str, body: str) -> None:
    assert ports.place is not None
    schema = ports.place.schema
    await ports.place.execute(
        f"CREATE FUNCTION {schema}.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$",
        f"CREATE TRIGGER f {when} ON {{t}} FOR EACH ROW EXECUTE FUNCTION {schema}.f()",
    )


async def test_an_id_with_trailing_blanks_never_overwrites_the_row_without_them(place: Place) -> None:
    await place.execute("CREATE TABLE {t} (id varchar(10) PRIMARY KEY, body text, crossfade_version bigint)")
    legacy = await open_legacy("documents", place.collection(text=("body",), metadata=(), tenant=None), place.dsn)
    await legacy.prepare()
    body = Content(text={"body": "mine"})
    await legacy.table.apply([upsert("1234567890", 1, body)])
    others = ["1234567890 ", "1234567890   ", "12345678901", "1234567890\t"]
    outcomes = await legacy.table.apply([upsert(one, 2, Content(text={"body": "other"})) for one in others])
    assert {outcome.verdict for outcome in outcomes} == {REFUSED}
    assert await place.fetch("SELECT id, body, crossfade_version FROM {t}") == [("1234567890", "mine", 1)]
    await legacy.close()


# What is done to the row of `b`, whose write is refused. The row of `a` is written.
SWALLOWS = {
    "a trigger drops it": ("BEFORE INSERT OR UPDATE", "IF NEW.id = 'b' THEN RETURN NULL; END IF; RETURN NEW;"),
    "a trigger changes the key": ("BEFORE INSERT", "IF NEW.id = 'b' THEN NEW.id = 'c'; END IF; RETURN NEW;"),
    "a trigger sets the version": (
        "BEFORE INSERT OR UPDATE",
        "IF NEW.id = 'b' THEN NEW.crossfade_version = NULL; END IF; RETURN NEW;",
    ),
    "a trigger deletes it": ("AFTER INSERT", "DELETE FROM {t} WHERE id = NEW.id AND id = 'b'; RETURN NULL;"),
    "a trigger moves it": ("AFTER INSERT", "UPDATE {t} SET id = 'c' WHERE id = NEW.id AND id = 'b'; RETURN NULL;"),
}


@pytest.mark.parametrize("case", SWALLOWS)
async def test_a_write_whose_row_is_not_there_is_refused_and_leaves_nothing(postgres: Ports, case: str) -> None:
    await trigger(postgres, *SWALLOWS[case])
    outcomes = await postgres.table.apply([upsert("a", 1), upsert("b", 1)])
    assert [outcome.verdict for outcome in outcomes] == [APPLIED, REFUSED]
    assert "after the write there is no row of this id" in (outcomes[1].reason or "")
    assert postgres.place is not None
    assert await postgres.place.fetch("SELECT id FROM {t}") == [("a",)]
    assert (await postgres.ledger.read(["b"]))["b"].refused_version == 1


async def test_a_rule_or_a_policy_that_hides_the_row_is_a_refusal(postgres: Ports) -> None:
    assert postgres.place is not None
    await postgres.place.execute("CREATE RULE no AS ON DELETE TO {t} WHERE old.id = 'b' DO INSTEAD NOTHING")
    await postgres.table.apply([upsert("a", 1), upsert("b", 1)])
    outcomes = await postgres.table.apply([removal("a", 2), removal("b", 2)])
    assert [outcome.verdict for outcome in outcomes] == [APPLIED, REFUSED]


async def test_a_deletion_that_leaves_the_row_is_refused_and_leaves_it_as_it_was(postgres: Ports) -> None:
    assert postgres.place is not None
    await postgres.table.apply([upsert("a", 1), upsert("b", 1)])
    await trigger(postgres, "BEFORE DELETE", "UPDATE {t} SET note = 'deleted' WHERE id = OLD.id; RETURN NULL;")
    outcomes = await postgres.table.apply([removal("a", 2), removal("z", 2)])
    assert [outcome.verdict for outcome in outcomes] == [REFUSED, APPLIED]
    assert "the row is still there" in (outcomes[0].reason or "")
    assert await postgres.place.fetch("SELECT id, note FROM {t} ORDER BY id") == [("a", "kept"), ("b", "kept")]


async def test_what_the_database_makes_of_a_row_is_followed(place: Place) -> None:
    blanks = "varchar(8)" if place.connector == "postgres" else "char(8)"
    await place.execute(
        f"CREATE TABLE {{t}} (id varchar(20) PRIMARY KEY, title {blanks}, body text, price numeric(6,2), "
        "crossfade_version bigint)"
    )
    if place.connector == "mariadb":
        await place.execute(
            f"CREATE TRIGGER {place.schema}.f BEFORE INSERT ON {{t}} FOR EACH ROW SET NEW.body = TRIM(NEW.body)"
        )
    else:
        await place.execute(
            f"CREATE FUNCTION {place.schema}.f() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN NEW.body = trim(NEW.body); RETURN NEW; END $$",
            f"CREATE TRIGGER f BEFORE INSERT OR UPDATE ON {{t}} FOR EACH ROW EXECUTE FUNCTION {place.schema}.f()",
        )
    legacy = await open_legacy("documents", place.collection(metadata=("price",), tenant=None), place.dsn)
    await legacy.prepare()
    given = {
        "same": ("title", "body", "1.5"),
        "trigger": ("title", "  body ", "1.5"),
        "scale": ("title", "body", "1.505"),
        "blanks": ("title   ", "body", "1.5"),
    }
    changes = [
        upsert(one, 1, Content(text={"title": title, "body": body}, metadata={"price": price}))
        for one, (title, body, price) in given.items()
    ]
    outcomes = await legacy.table.apply(changes)
    assert {outcome.verdict for outcome in outcomes} == {APPLIED}
    followed = {change.id for change, outcome in zip(changes, outcomes, strict=True) if outcome.differs}
    padded = {"blanks"} if place.connector == "mariadb" else set()
    assert followed == {"trigger", "scale"} | padded
    await legacy.close()


async def test_a_session_that_is_not_strict_is_refused(stack: StackAddresses, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fresh_place("mariadb", stack) as place:
        pool = mariadb_pool.Pool(place.dsn)
        pool._arguments["init_command"] = "SET SESSION sql_mode = ''"
        with pytest.raises(Misconfigured, match="not strict"):
            async with pool.session():
                pass
        await pool.close()


def part(document_id: str, version: int, given: Content, *omitted: str) -> LegacyChange:
    return LegacyChange(document_id, version, version, given, frozenset(omitted))


async def test_what_a_change_leaves_out_keeps_the_rows_value_and_null_is_null(ports: Ports) -> None:
    await ports.table.apply([upsert("a", 1, content("t", "b", "acme", year=1999, price="1.5", slug="s"))])
    left = ("title", "year", "ok", "tenant")
    change = part("a", 2, Content(text={"body": "new"}, metadata={"price": None, "slug": "s"}), *left)
    (outcome,) = await ports.table.apply([change])
    assert (outcome.verdict, outcome.differs) == (APPLIED, True)
    row = (await ports.table.rows(["a"]))["a"]
    assert (row.version, row.content) == (2, content("t", "new", "acme", year=1999, slug="s"))


async def test_a_new_row_gets_the_defaults_of_what_was_left_out_and_a_column_without_one_is_refused(
    place: Place,
) -> None:
    text = "text" if place.connector == "postgres" else "varchar(40)"
    await place.execute(
        f"CREATE TABLE {{t}} (id varchar(9) PRIMARY KEY, title {text} NOT NULL DEFAULT 'untitled', body text NOT NULL, "
        "year int NOT NULL DEFAULT 1970, deleted int NOT NULL DEFAULT 0, crossfade_version bigint)"
    )
    collection = place.collection(metadata=("year", "deleted"), tenant=None)
    legacy = await open_legacy("documents", collection, place.dsn)
    await legacy.prepare()
    both = ("title", "year", "deleted")
    body = Content(text={"body": "b"})
    nothing = part("c", 1, Content(text={}, metadata={"year": 5}), "title", "body", "deleted")
    outcomes = await legacy.table.apply([part("a", 1, body, *both), part("b", 1, body, *both), nothing])
    assert [outcome.verdict for outcome in outcomes] == [APPLIED, APPLIED, REFUSED]
    rows = await legacy.table.rows(["a", "b"])
    assert rows["a"].content == Content(text={"title": "untitled", "body": "b"}, metadata={"year": 1970, "deleted": 0})
    # If the row exists, the column without a default need not be named, and a soft deletion stays.
    await place.execute("UPDATE {t} SET deleted = 1 WHERE id = 'a'")
    (outcome,) = await legacy.table.apply(
        [part("a", 2, Content(text={}, metadata={"year": 5}), "title", "body", "deleted")]
    )
    assert outcome.verdict is APPLIED
    assert await place.fetch("SELECT body, year, deleted FROM {t} WHERE id = 'a'") == [("b", 5, 1)]
    await legacy.close()


async def test_changes_that_leave_out_any_columns_are_as_if_one_after_the_other(ports: Ports) -> None:
    rng = random.Random(7)
    names = ("title", "body", "year", "price", "ok")
    expected: dict[str, dict[str, Any]] = {}
    for version in range(1, 9):
        changes = []
        for document_id in rng.sample([f"d{n}" for n in range(6)], 4):
            known = expected.get(document_id)
            left = set(rng.sample(names, rng.randrange(5))) - (set() if known else {"body"})
            new = {
                "title": rng.choice([None, f"t{version}"]),
                "body": f"b{version}",
                "year": rng.choice([None, version]),
                "price": f"{version}.5",
                "ok": rng.choice([None, True, False]),
            }
            merged = (known or dict.fromkeys(names)) | {name: value for name, value in new.items() if name not in left}
            expected[document_id] = merged
            texts = {name: new[name] for name in ("title", "body") if name not in left}
            metadata = {name: new[name] for name in ("year", "price", "ok") if name not in left}
            given = Content(text=texts, metadata={**metadata, "slug": None})
            changes.append(part(document_id, version, given, *left))
        assert {outcome.verdict for outcome in await ports.table.apply(changes)} == {APPLIED}
    rows = await ports.table.rows(list(expected))
    for document_id, want in expected.items():
        held = content(want["title"], want["body"], year=want["year"], price=want["price"], ok=want["ok"])
        assert rows[document_id].content == held


async def test_an_embedding_that_is_left_out_stays_with_its_text_and_goes_with_another(place: Place) -> None:
    form, kind = ("pgvector", "vector(3)") if place.connector == "postgres" else ("float32", "blob")
    await place.execute(
        f"CREATE TABLE {{t}} (id varchar(20) PRIMARY KEY, title text, body text, year int, emb {kind}, "
        "crossfade_version bigint)"
    )
    column = EmbeddingColumn.model_validate({"column": "emb", "format": form})
    collection = place.collection(metadata=("year",), tenant=None, embedding=column)
    legacy = await open_legacy("documents", collection, place.dsn)
    await legacy.prepare()
    vector = np.asarray([1.0, 2.0, 3.0], dtype="<f4").tobytes()

    def of(title: str, year: int, embedding: bytes | None = None) -> Content:
        return Content(text={"title": title, "body": "b"}, metadata={"year": year}, embedding=embedding)

    ids = ["same", "case", "other", "null", "metadata"]
    await legacy.table.apply([upsert(one, 1, of("a", 1, vector)) for one in ids])
    outcomes = await legacy.table.apply(
        [
            part("same", 2, of("a", 2), "emb"),
            part("case", 2, of("A", 2), "emb"),
            part("other", 2, of("z", 2), "emb"),
            part("null", 2, of("a", 2)),
            part("metadata", 2, Content(text={}, metadata={"year": 2}), "title", "body", "emb"),
            part("new", 2, of("a", 2), "emb"),
        ]
    )
    rows = await legacy.table.rows([*ids, "new"])
    kept = {one for one, row in rows.items() if row.content.embedding is not None}
    assert kept == {"same", "metadata"}
    assert [outcome.differs for outcome in outcomes] == [True, False, False, False, True, False]
    assert {row.content.metadata["year"] for row in rows.values()} == {2}
    await legacy.close()
