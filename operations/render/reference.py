"""Makes the pages of docs/ that describe the code from the code itself, so that the two cannot disagree.

`python -m operations.render.reference DIR` writes them. A test compares the files in docs/ with what it writes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from agents.wiring import AGENTS, Agent
from topics.catalogue import CATALOGUE, DAY_MS, FOR_EVER, Topic
from topics.roles import ROLES, Role, readers_of, writers_of

_PREFIX = "crossfade."
_CAPTURED = "captured"
_FLOW = """# The flow
<!-- Made by `python -m operations.render.reference docs` from topics/roles.py and topics/catalogue.py. -->
Rounded boxes are agents, slanted ones topics (`crossfade.` and the version are left out), cylinders stores. Dotted
lines are reads. Each agent is a consumer group of its own; each topic that an agent reads has a dead-letter topic
`…-dlt`.

```mermaid
flowchart LR
{diagram}
```

## Agents
| role | reads | writes | stores | handler |
|---|---|---|---|---|
{roles}

## Topics
| topic | events | written by | read by | partitions | kept |
|---|---|---|---|---|---|
{topics}

*log*: as many as the document log, which never changes under a running migration, because a version is an offset in
one of its partitions. *working*: `kafka.partitions`, may be widened at any time.
"""


def flow_page() -> str:
    """Return docs/flow.md: the diagram of agents, topics and stores, and the tables of agents and topics."""
    return _FLOW.format(
        diagram="\n".join(f"    {line}" for line in _diagram()),
        roles="\n".join(_agent_row(agent) for agent in AGENTS),
        topics="\n".join(_topic_row(topic) for topic in CATALOGUE),
    )


PAGES = {"flow.md": flow_page}


def _diagram() -> list[str]:
    lines = [f"{_node(topic.name)}[/{_short(topic.name)}/]" for topic in CATALOGUE]
    lines += [f"{role.name}_agent({role.name})" for role in ROLES]
    # Capture's topics are Debezium's: one for each configured table.
    lines += [
        "legacy_table[(legacy table)]",
        f"{_CAPTURED}[/captured tables/]",
        f"legacy_table -- Debezium --> {_CAPTURED}",
    ]
    agents = {role.name for role in ROLES}
    for topic in CATALOGUE:
        lines += [f"{_node(who)}([{who}]) --> {_node(topic.name)}" for who in writers_of(topic) if who not in agents]
    for role in ROLES:
        lines += _edges(role)
    for topic in CATALOGUE:
        lines += [f"{_node(topic.name)} --> {_node(who)}([{who}])" for who in readers_of(topic) if who not in agents]
    return list(dict.fromkeys(lines))


def _edges(role: Role) -> Iterable[str]:
    agent = f"{role.name}_agent"
    yield from (f"{_node(topic)} --> {agent}" for topic in role.reads or (_CAPTURED,))
    yield from (f"{agent} --> {_node(topic)}" for topic in role.writes)
    yield from (f"{agent} --> {_node(store)}[({store})]" for store in role.stores)
    yield from (f"{_node(store)}[({store})] -.-> {agent}" for store in role.looks_in)


def _node(name: str) -> str:
    # Mermaid reserves words such as `end`. The name of a topic has dots, so it is never one of them.
    return _short(name).lower().replace(".", "_").replace(" ", "_").replace("-", "_")


def _short(topic: str) -> str:
    return topic.removeprefix(_PREFIX).removesuffix(".v1")


def _agent_row(agent: Agent) -> str:
    role, handler = agent.role, f"{agent.handle.__module__}.{agent.handle.__qualname__}"
    reads = _list(role.reads) or "Debezium's topics, one a table"
    stores = ", ".join((*role.stores, *(f"{store} (reads)" for store in role.looks_in)))
    return f"| {role.name} | {reads} | {_list(role.writes)} | {stores} | `{handler}` |"


def _topic_row(topic: Topic) -> str:
    kept = "for ever" if topic.retention_ms == FOR_EVER else f"{topic.retention_ms // DAY_MS} d"
    events = ", ".join(f"`{event.__name__}`" for event in topic.events)
    readers, writers = ", ".join(readers_of(topic)), ", ".join(writers_of(topic))
    return f"| `{topic.name}` | {events} | {writers} | {readers} | {topic.partitions} | {kept} |"


def _list(topics: Iterable[str]) -> str:
    return ", ".join(f"`{_short(topic)}`" for topic in topics)


def main(folder: Path) -> None:
    """Write every page into the folder."""
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
