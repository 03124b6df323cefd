"""Each change of state is published once, in order, and waits without a time limit while the brokers do not answer."""

from __future__ import annotations

from agents.status_reporter import StatusReporter
from connectors.errors import StoreUnavailable
from schemas.service import ServiceChanged
from tests.unit.agents.parts import NAME, World
from topics.catalogue import SERVICE


async def test_the_same_state_again_is_not_told_again_and_closed_is_where_it_begins() -> None:
    world = World()
    standing = StatusReporter(world.bus, world.ctx)
    for state in ("closed", "open", "open", "closed"):
        standing.tell("role", "vector", state, reason="StoreUnavailable: down" if state == "open" else "")
    await standing.publish()
    told = world.bus.events(SERVICE, ServiceChanged)
    assert [(each.name, each.state, each.reason) for each in told] == [
        ("vector", "open", "StoreUnavailable: down"),
        ("vector", "closed", ""),
    ]
    (first, _) = world.bus.inner.records(SERVICE)
    assert first.key == b"role/vector"


async def test_what_the_brokers_did_not_take_is_published_with_the_next() -> None:
    world = World()
    standing = StatusReporter(world.bus, world.ctx)
    world.journal.fail(f"publish {SERVICE}", StoreUnavailable("no broker"))
    standing.tell("collection", NAME, "open")
    await standing.publish()
    assert world.bus.events(SERVICE, ServiceChanged) == []
    standing.tell("collection", NAME, "closed")
    await standing.publish()
    await standing.publish()
    assert [each.state for each in world.bus.events(SERVICE, ServiceChanged)] == ["open", "closed"]
