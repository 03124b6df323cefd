"""No tenant sees another tenant's documents, however similar their names are in the table's collation."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from connectors.ports import SearchRequest
from connectors.sql.databases import apply_remedies, open_legacy
from connectors.sql.layout import Column, Layout
from connectors.sql.postgres.search import conditions
from schemas.settings import Collection, Connector
from schemas.values import Kind
from stack.layout import StackAddresses
from tests.contract.legacy_places import fresh_place
from tests.contract.vector_stores import DIMENSION, document, opened, vector

ALIKE = [
    "default", "Default", "DEFAULT", "default ", " default", "défault", "de\u0301fault", " ", "  ", "\t", "\u00a0",
    "acme", "ACME", "acme ", "acme  ", "Acmé", "acme\u0301", "ácme", "a\u0301cme", "ß", "ss", "SS", "I", "i", "\u0131",
    "日本", "🎈", "a'b", "a\\b", "%", "0", "00", "null",
]  # fmt: skip
NUMBERS = ["0", "7", "-7", "2147483647"]
ASKED_OF_NUMBERS = [*NUMBERS, "default", "07", "+7", "7.0", " 7", "-0", "seven", "2147483648", str(2**63), "9" * 30]
TYPES: list[tuple[Connector, str]] = [
    ("postgres", "text"),
    ("postgres", "varchar(40)"),
    ("postgres", "integer"),
    ("mariadb", "varchar(40) COLLATE utf8mb4_general_ci"),
    ("mariadb", "varchar(40) COLLATE utf8mb4_unicode_nopad_ci"),
    ("mariadb", "varchar(40) COLLATE utf8mb4_bin"),
    ("mariadb", "varchar(40) COLLATE utf8mb4_nopad_bin"),
    ("mariadb", "char(40) COLLATE utf8mb4_general_ci"),
    ("mariadb", "int"),
]


def literal(connector: Connector, tenant: str) -> str:
    escaped = tenant.replace("'", "''")
    return f"'{escaped}'" if connector == "postgres" else "'" + escaped.replace("\\", "\\\\") + "'"


@pytest.mark.stack
@pytest.mark.parametrize(("connector", "declared"), TYPES)
async def test_a_question_finds_the_documents_of_exactly_its_tenant(
    connector: Connector, declared: str, stack: StackAddresses
) -> None:
    numbers = "int" in declared
    tenants = NUMBERS if numbers else ALIKE
    async with fresh_place(connector, stack) as place, AsyncExitStack() as stores:
        await place.execute(
            f"CREATE TABLE {{t}} (id bigint PRIMARY KEY, body text, tenant {declared}, crossfade_version bigint)",
            "INSERT INTO {t} (id, body, tenant) VALUES (1000, 'wing', NULL)"
            + ("" if numbers else ", (1001, 'wing', '')")
            + "".join(f", ({n}, 'wing', {literal(connector, one)})" for n, one in enumerate(tenants)),
        )
        settings = place.collection(text=("body",), metadata=(), tenant="tenant")
        legacy = await open_legacy("documents", settings, place.dsn)
        try:
            await apply_remedies(place.dsn, [f for f in await legacy.table.check() if "index" in f.message.lower()])
            rows = await legacy.bulk.scan_range(None, None, 1000)
            searches = {"table": legacy.text_search.search}
            for kind in ("memory", "embedded"):
                store = await stores.enter_async_context(opened(kind))
                await store.prepare("c", DIMENSION)
                await store.write("c", [document(row.id, 1, tenant=row.content.tenant) for row in rows])
                searches[kind] = lambda request, store=store: store.search("c", request)  # type: ignore[misc]  # a lambda's default
            for tenant in ASKED_OF_NUMBERS if numbers else ALIKE:
                expected = {row.id for row in rows if row.content.tenant == tenant}
                assert ("1000" in expected) == (tenant == "default")
                for where, search in searches.items():
                    hits = await search(SearchRequest("wing", vector(1, 0, 0, 0), tenant, 200, {}))
                    assert {hit.document_id for hit in hits} == expected, (where, tenant)
        finally:
            await legacy.close()


def test_a_collation_that_takes_names_for_the_same_is_not_trusted_in_postgresql() -> None:
    """No PostgreSQL build here has a nondeterministic collation, but the statement must not rely on determinism."""
    column = Column("tenant", "text", Kind.TEXT, binary=False)
    settings = Collection(table="t", key=("id",), text=("body",), tenant="tenant")
    layout = Layout("documents", settings, "public", "t", {"tenant": column})
    for tenant in ("acme", "default"):
        where, values = conditions(layout, tenant, {})
        assert 't."tenant"::text COLLATE "C" = $3::text' in where
        assert values == [tenant]
