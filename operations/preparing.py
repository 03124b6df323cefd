"""What must be true before a worker starts: topics and table columns. Capture is prepared in `operations.capturing`."""

from __future__ import annotations

from collections.abc import Callable

from connectors.kafka.admin import existing_topics, provision, topic_names
from connectors.legacy_connector import apply_mend, check_legacy
from operations.context import WRONG_USE
from operations.errors import CommandError
from schemas.settings import Collection, Settings
from topics.provisioning import desired_topics, plan

Progress = Callable[[str], None]


async def prepare_topics(settings: Settings, progress: Progress) -> None:
    """Create and widen what the catalogue says. Raises Misconfigured for a step that needs an operator's yes."""
    bootstrap = _bootstrap(settings)
    desired = desired_topics(settings, await topic_names(bootstrap))
    actions = plan(desired, await existing_topics(bootstrap, [topic.name for topic in desired]))
    await provision(bootstrap, actions)
    made = sum(action.kind == "create" for action in actions)
    if made:
        progress(f"{made} topics created")


async def check_tables(settings: Settings, progress: Progress, *, mend: bool) -> None:
    """Check every collection's database and table; with `mend`, execute the statements that mend them.

    Raises CommandError, as for wrong use, with what is wrong and the statement for it.
    """
    for name, said in (await table_mistakes(settings, progress, mend=mend)).items():
        raise CommandError(
            f"The collection {name} is not ready:\n{said}",
            "Run the statements, or let crossfade run them: crossfade config check --apply",
            WRONG_USE,
        )


async def table_mistakes(settings: Settings, progress: Progress, *, mend: bool) -> dict[str, str]:
    """Return the collections whose database or table is not as it must be, with what is wrong; see `check_tables`."""
    found: dict[str, str] = {}
    for name, collection in settings.collections.items():
        dsn = _dsn(name, collection)
        errors = [finding for finding in await check_legacy(name, collection, dsn) if finding.level == "error"]
        if mend and errors:
            for statement in await apply_mend(dsn, errors):
                progress(f"{name}: {statement}")
            errors = [f for f in await check_legacy(name, collection, dsn) if f.level == "error"]
        if errors:
            found[name] = "\n".join(
                f"  {f.subject}: {f.message}" + (f"\n    {f.mend}" if f.mend else "") for f in errors
            )
    return found


async def follow_advice(settings: Settings, name: str, progress: Progress) -> None:
    """Execute what the check only warns of for a collection, where it names a statement: a full-text index, say."""
    collection = settings.collections[name]
    dsn = _dsn(name, collection)
    advised = [finding for finding in await check_legacy(name, collection, dsn) if finding.mend]
    for statement in await apply_mend(dsn, advised):
        progress(f"{name}: {statement}")


def _bootstrap(settings: Settings) -> str:
    if settings.kafka.bootstrap is None:
        raise CommandError("There is no broker.", "Set kafka.bootstrap, or run: crossfade up")
    return settings.kafka.bootstrap


def _dsn(name: str, collection: Collection) -> str:
    if collection.dsn is None:
        raise CommandError(f"The collection {name} has no database.", "Set its dsn, or run: crossfade up")
    return collection.dsn
