"""Points in Qdrant that were deleted or replaced: a whole worker notices within seconds, and recapture remakes them."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from connectors.qdrant.engine.files import engine_folder
from stack.layout import StackAddresses
from stack.stack import LocalStack
from tests.faults.closing import Closing, closing

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


@pytest.fixture
async def ground(stack: StackAddresses, stack_home: Path, tmp_path: Path) -> AsyncIterator[Closing]:
    async with closing(stack, stack_home, tmp_path) as made:
        yield made


async def with_the_engine_stopped(home: Path, change: Callable[[], object]) -> None:
    """Change the engine's files as an operator would. The engine is started again whatever happens."""
    qdrant = LocalStack(home).part("qdrant")
    await qdrant.stop()
    try:
        change()
    finally:
        await qdrant.start(lambda _: None)


async def test_points_deleted_under_a_worker_and_put_back_from_a_copy_between_runs_are_made_again(
    ground: Closing, stack_home: Path, tmp_path: Path
) -> None:
    await ground.configure({"a": "postgres", "b": "mariadb"})
    await ground.worker.start()
    await ground.same("a", "b")
    points, copy = engine_folder(stack_home) / ground.tables["a"].name, tmp_path / "copy"
    await with_the_engine_stopped(stack_home, lambda: shutil.copytree(points, copy))
    await ground.tables["a"].execute(
        "update {t} set body = 'changed behind the copy' where id < 'row-15'", "delete from {t} where id = 'row-3'"
    )
    await ground.same("a")

    await with_the_engine_stopped(stack_home, lambda: shutil.rmtree(points))
    await ground.is_stopped(a="points_replaced")
    await ground.tables["a"].execute("delete from {t} where id = 'row-4'")
    await ground.recapture("a")
    await ground.is_stopped()
    await ground.same("a", "b")

    await ground.worker.stop()

    def put_back() -> None:
        shutil.rmtree(points)
        shutil.copytree(copy, points)

    await with_the_engine_stopped(stack_home, put_back)
    await ground.worker.start()
    await ground.is_stopped(a="points_replaced")
    await ground.recapture("a")
    await ground.is_stopped()
    await ground.same("a", "b")
