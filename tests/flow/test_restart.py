"""A worker that is ended in the middle of its work and started again loses nothing.

Changes that wait for a worker do not count as differences.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter

import pytest

from domain.quarantine import Reason
from migration.state import CollectionState
from tests.contract.legacy_places import DATABASES
from tests.flow.foreign import SUBMITTED_TYPE
from tests.flow.site import Site, Store, eventually
from topics.catalogue import SUBMITTED, WRITTEN

pytestmark = pytest.mark.stack
DOCUMENTS = 150


def submit_half(stores: list[Store], half: int) -> dict[str, str]:
    """Submit every other document to each store; return the documents' keys by the ids of their events."""
    causes: dict[str, str] = {}
    for number in range(half, DOCUMENTS, 2):
        for store in stores:
            cause, document_id = uuid.uuid4().hex, f"in-flight-{number}"
            key = f"{store.name}/{document_id}"
            text = {"title": f"in flight {number}", "body": f"Document {number}, submitted around a restart."}
            metadata = {"kind": None, "line": number}
            data = {"collection": store.name, "id": document_id, "text": text, "metadata": metadata}
            store.site.foreign.begin_send(SUBMITTED, key, data, cause, SUBMITTED_TYPE)
            causes[cause] = key
    store.site.foreign.flush()
    return causes


async def test_sigterm_in_the_midst_of_submissions_loses_nothing(site: Site) -> None:
    stores = [site.store("docs", connector) for connector in DATABASES]
    causes = submit_half(stores, 0)

    async def begun() -> bool:
        return bool(await stores[0].value("select count(*) from {t} where id like 'in-flight-%'"))

    await eventually(begun, "the first submission is in the table")
    await site.worker.stop()
    causes |= submit_half(stores, 1)
    await site.worker.start()

    reported: Counter[tuple[str, str]] = Counter()

    async def all_reported() -> bool:
        reported.clear()
        for seen in await site.foreign.everything(WRITTEN):
            if seen.data["cause"] in causes:
                assert (seen.data["outcome"], seen.key) == ("applied", causes[seen.data["cause"]])
                reported[seen.data["cause"], seen.data["store"]] += 1
        return set(reported) == {(cause, store) for cause in causes for store in ("legacy", "qdrant")}

    await eventually(all_reported, "every submission has its outcome in both stores")
    for store in stores:
        assert await store.value("select count(*) from {t} where id like 'in-flight-%'") == DOCUMENTS
        await store.holds_the_same(await store.count())


async def test_what_waits_for_a_worker_is_no_difference_of_a_quarantined_collection(site: Site) -> None:
    store = site.store("docs", "postgres")
    state = CollectionState(store.ports.ledger, store.name)
    await store.holds_the_same(await store.count())
    await site.worker.stop()
    await state.set_reason(Reason.POINTS_REPLACED)
    try:
        await store.execute("insert into {t} values ('waits', 't', 'Committed.', 'sql', 1)")
        code, output = await store.command(
            "verify", store.name, "--json", "--full", "--sample", "0", "--recheck-timeout", "2"
        )
        found = json.loads(output)
        assert (code, found["differences"], found["pending"]) == (1, 0, 1), output
    finally:
        await site.worker.start()
    code, output = await store.command("verify", store.name, "--json", "--full", "--sample", "0")
    assert (code, json.loads(output)["differences"]) == (0, 0), output
    await state.set_reason(None)
    await store.applied("waits", text={"title": "t", "body": "Again."}, metadata={"kind": None, "line": 1})
