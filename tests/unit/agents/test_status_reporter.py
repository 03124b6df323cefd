"""Each change of state is published once, in order, and waits without a time limit while the brokers do not answer."""

from __future__ import annotations

from agents.status_reporter import StatusReporter
from connectors.errors import StoreUnavailable
from schemas.service import ServiceChanged
from tests.unit.agents.parts import NAME, World
from topics.catalogue import SERVICE


async def test_the_same_state_again_is_not_reported_again_and_closed_is_where_it_begins() -> None:
    world = World()
    reporter = StatusReporter(world.bus, world.ctx)
    for state in ("closed", "open", "open", "closed"):
        reporter.report("role", "vector", state, reason="StoreUnavailable: down" if state == "open" else "")
    await reporter.publish()
    reported = world.bus.events(SERVICE, ServiceChanged)
    assert [(each.name, each.state, each.reason) for each in reported] == [
        ("vector", "open", "StoreUnavailable: down"),
        ("vector", "closed", ""),
    ]
    (first, _) = world.bus.inner.records(SERVICE)
    assert first.key == b"role/vector"


async def test_what_the_brokers_did_not_take_is_published_with_the_next() -> None:
    world = World()
    reporter = StatusReporter(world.bus, world.ctx)
    world.journal.fail(f"publish {SERVICE}", StoreUnavailable("no broker"))
    reporter.report("collection", NAME, "open")
    await reporter.publish()
    assert world.bus.events(SERVICE, ServiceChanged) == []
    reporter.report("collection", NAME, "closed")
    await reporter.publish()
    await reporter.publish()
    assert [each.state for each in world.bus.events(SERVICE, ServiceChanged)] == ["open", "closed"]
