"""`crossfade ask`: one question over Kafka, and its answer. The client is in `operations.clients.questions`."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, get_args

import typer
from pydantic import ValidationError

from connectors.kafka.bus import AiokafkaBus
from operations.clients.questions import Asker
from operations.context import (
    FAILED,
    PANEL_RUN,
    USAGE_ERROR,
    ConfigOption,
    Context,
    HomeOption,
    JsonOption,
    amount,
    errors_reported,
    load,
    print_json,
    print_table,
    run,
    say,
)
from operations.errors import CommandError
from schemas.cloudevents import explain
from schemas.content import Scalar
from schemas.queries import Backend, QueryAnswered, QueryAsked

_PREVIEW_CHARACTERS = 100

app = typer.Typer()


@app.command(rich_help_panel=PANEL_RUN)
def ask(
    text: Annotated[str, typer.Argument(help="The question.")],
    collection: Annotated[
        str | None, typer.Option("--collection", help="Of which collection (default: the only one).")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="The most documents to answer with.")] = 5,
    route: Annotated[
        str | None, typer.Option("--route", help=f"Force a backend: {' or '.join(get_args(Backend))}.")
    ] = None,
    tenant: Annotated[str, typer.Option("--tenant", help="Whose documents.")] = "default",
    wanted: Annotated[
        list[str] | None, typer.Option("--filter", help="column=value: only documents with that metadata; repeatable.")
    ] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for the answer.")] = 15.0,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Ask a question, and print the answer and the backend that gave it.

    The route follows the collection's phase. Exit code 1: no backend could answer.
    """
    with errors_reported():
        if route not in (None, *get_args(Backend)):
            raise CommandError(
                f"There is no backend {route!r}.", f"Backends: {', '.join(get_args(Backend))}.", USAGE_ERROR
            )
        context = load(config, home)
        _ = context.bootstrap
        query = _question(
            collection=context.collection(collection),
            tenant=tenant,
            text=text,
            limit=limit,
            filter=_filter(wanted or []),
            route=route,
        )
    answered = run(_answer(context, query, timeout_s))
    if answered.refused and not json:
        with errors_reported():
            raise CommandError(f"The question was refused: {answered.error}.", exit_code=USAGE_ERROR)
    if json:
        print_json(answered.model_dump(mode="json"))
    else:
        _print(answered)
    if answered.error:
        raise typer.Exit(USAGE_ERROR if answered.refused else FAILED)


def _question(**fields: Any) -> QueryAsked:
    try:
        return QueryAsked(id=uuid.uuid4().hex, **fields)
    except ValidationError as error:
        raise CommandError(
            f"That is no question: {explain(error)}.", "See: crossfade ask --help", USAGE_ERROR
        ) from None


def _filter(wanted: list[str]) -> dict[str, Scalar]:
    """Return the filter given by `column=value` arguments. The value `null`, as in JSON without quotes, means NULL."""
    found: dict[str, Scalar] = {}
    for one in wanted:
        name, sign, value = one.partition("=")
        if not sign or not name:
            raise CommandError(f"{one!r} is no filter.", "Give --filter column=value.", USAGE_ERROR)
        found[name] = None if value == "null" else value
    return found


async def _answer(context: Context, query: QueryAsked, timeout_s: float) -> QueryAnswered:
    bus = AiokafkaBus(context.settings.kafka)
    try:
        async with Asker(context.settings.kafka, bus) as asker:
            return await asker.ask(query, timeout_s)
    except TimeoutError:
        raise CommandError(
            f"No answer came within {timeout_s:g} s.", "Does a worker with the role query run? See: crossfade worker"
        ) from None
    finally:
        await bus.close()


def _print(answered: QueryAnswered) -> None:
    if answered.error:
        say(f"crossfade: no backend could answer: {answered.error}")
        return
    rows = [
        (f"{hit.score:.3f}", hit.document_id, " ".join(hit.text.split())[:_PREVIEW_CHARACTERS]) for hit in answered.hits
    ]
    if rows:
        print_table(("score", "document", "text"), rows)
    degraded = ", degraded: the backend of this phase could not answer" if answered.degraded else ""
    took = answered.timings_ms.get("total", 0)
    print(f"{amount(len(rows), 'document')} from {answered.served_by}{degraded}, {took:.1f} ms.")
