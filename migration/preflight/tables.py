"""Checks and prepares topics and tables before a worker starts. `migration.capture` prepares capture."""

from __future__ import annotations

from collections.abc import Callable

from connectors.addresses import brokers_of, dsn_of
from connectors.errors import TableNotReady
from connectors.kafka.admin import existing_topics, provision, topic_names
from connectors.sql.databases import apply_remedies, check_legacy
from schemas.settings import Settings
from topics.provisioning import desired_topics, plan

Progress = Callable[[str], None]


async def prepare_topics(settings: Settings, progress: Progress) -> None:
    """Create and widen the topics of the catalogue. Raises Misconfigured for a step that an operator must confirm."""
    bootstrap = brokers_of(settings.kafka)
    desired = desired_topics(settings, await topic_names(bootstrap))
    actions = plan(desired, await existing_topics(bootstrap, [topic.name for topic in desired]))
    await provision(bootstrap, actions)
    made = sum(action.kind == "create" for action in actions)
    if made:
        progress(f"{made} topics created")


async def check_tables(settings: Settings, progress: Progress, *, apply: bool) -> None:
    """Check every collection's database and table. With `apply`, execute the statements that fix them.

    Raises TableNotReady with what is wrong and the statement that fixes it.
    """
    for name, text in (await table_mistakes(settings, progress, apply=apply)).items():
        raise TableNotReady(
            f"The collection {name} is not ready:\n{text}",
            "Run the statements, or let crossfade run them: crossfade config check --apply",
        )


async def table_mistakes(settings: Settings, progress: Progress, *, apply: bool) -> dict[str, str]:
    """Return what is wrong with the databases and tables, by collection; see `check_tables`."""
    found: dict[str, str] = {}
    for name, collection in settings.collections.items():
        dsn = dsn_of(name, collection)
        errors = [finding for finding in await check_legacy(name, collection, dsn) if finding.level == "error"]
        if apply and errors:
            for statement in await apply_remedies(dsn, errors):
                progress(f"{name}: {statement}")
            errors = [f for f in await check_legacy(name, collection, dsn) if f.level == "error"]
        if errors:
            found[name] = "\n".join(
                f"  {f.subject}: {f.message}" + (f"\n    {f.shown_remedy}" if f.remedy else "") for f in errors
            )
    return found


async def follow_advice(settings: Settings, name: str, progress: Progress) -> None:
    """Execute every statement that the check of a collection names, also for warnings, such as a full-text index."""
    collection = settings.collections[name]
    dsn = dsn_of(name, collection)
    advised = [finding for finding in await check_legacy(name, collection, dsn) if finding.remedy]
    for statement in await apply_remedies(dsn, advised):
        progress(f"{name}: {statement}")
