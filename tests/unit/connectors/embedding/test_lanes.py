"""Documents wait in a bounded queue, questions bypass it, and a bad text harms no other caller."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from connectors.embedding.chunking import Chunker, plain_tokenizer
from connectors.embedding.locate import locate_model
from connectors.embedding.model import ModelDescription, ModelIdentity, Vectors, normalised, to_bytes
from connectors.embedding.service import EmbeddingService, EmbeddingSettings, serve
from connectors.errors import EmbeddingFailed, EmbeddingUnavailable

TOKENIZER = plain_tokenizer((locate_model("all-MiniLM-L6-v2", print) / "tokenizer.json").read_text(encoding="utf-8"))
WAIT_S = 30


class GatedEngine:
    """An engine that computes only while its gate is open, and keeps its texts. "nan" and "crash" fail."""

    def __init__(self) -> None:
        self.identity = ModelIdentity("gated", "1", 2)
        self.description = ModelDescription(self.identity, 64, "mean", "", "")
        self.tokenizer: Any = TOKENIZER
        self.gate = threading.Event()
        self.asked: list[list[str]] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked.append(list(texts))
        assert self.gate.wait(WAIT_S)
        if "crash" in texts:
            raise RuntimeError("no memory")
        rows = [[float("nan"), 0.0] if text == "nan" else [float(len(text)), 1.0] for text in texts]
        return normalised(np.array(rows, dtype=np.float32), 2)

    def lane(self) -> "GatedEngine":
        return GatedEngine()

    def close(self) -> None:
        self.gate.set()


def opened(**changes: Any) -> tuple[GatedEngine, GatedEngine, EmbeddingService]:
    documents, queries = GatedEngine(), GatedEngine()
    queries.gate.set()
    settings = EmbeddingSettings(**{"timeout_s": WAIT_S, "threads": 1, **changes})
    return documents, queries, serve(documents, queries, settings)


async def until(condition: Any) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 the engine's threads set no event of this loop
            await asyncio.sleep(0.001)


def expected(text: str) -> bytes:
    return to_bytes(normalised(np.array([[float(len(text)), 1.0]], dtype=np.float32), 2))[0]


async def test_a_question_is_answered_while_all_documents_are_held() -> None:
    documents, _, service = opened()
    held = asyncio.create_task(service.embed_documents(["a"] * 100))
    await until(lambda: len(documents.asked) == 2)
    assert await service.embed_query("question") == expected("question")
    assert not held.done()
    documents.gate.set()
    assert await held == [expected("a")] * 100
    await service.close()


async def test_texts_of_different_callers_are_computed_in_one_batch_and_come_back_to_them() -> None:
    documents, _, service = opened(batch_size=8)
    first = [asyncio.create_task(service.embed_documents(["first"])) for _ in range(2)]
    await until(lambda: sum(map(len, documents.asked)) == 2)
    callers = [asyncio.create_task(service.embed_documents(["x" * n, "y" * (n + 10)])) for n in range(1, 5)]
    await until(lambda: service._lanes.documents.depth == 8 or len(documents.asked) > 1)
    documents.gate.set()
    found = await asyncio.gather(*callers)
    await asyncio.gather(*first)
    assert found == [[expected("x" * n), expected("y" * (n + 10))] for n in range(1, 5)]
    assert max(map(len, documents.asked)) > 2
    assert max(map(len, documents.asked)) <= 8
    await service.close()


async def test_a_full_queue_holds_its_callers_until_there_is_room() -> None:
    documents, _, service = opened(batch_size=1, queue_limit=3)
    caller = asyncio.create_task(service.embed_documents([f"t{n}" for n in range(10)]))
    await until(lambda: len(documents.asked) == 2 and service._lanes.documents.depth == 3)
    late = asyncio.create_task(service.embed_documents(["late"]))
    for _ in range(50):
        await asyncio.sleep(0)
    # 2 texts are being computed, 3 wait, the others are not in the queue yet
    assert service._lanes.documents.depth == 3
    assert sum(map(len, documents.asked)) == 2
    documents.gate.set()
    assert len(await caller) == 10
    assert await late == [expected("late")]
    await service.close()


async def test_a_queue_that_stays_full_is_an_error_that_may_pass() -> None:
    documents, _, service = opened(batch_size=1, queue_limit=1, timeout_s=0.05)
    with pytest.raises(EmbeddingUnavailable):
        await service.embed_documents(["a", "b", "c", "d", "e"])
    documents.gate.set()
    await service.close()


@pytest.mark.parametrize(("bad", "error"), [("nan", EmbeddingFailed), ("crash", EmbeddingUnavailable)])
async def test_a_bad_text_raises_for_its_caller(bad: str, error: type[Exception]) -> None:
    documents, _, service = opened()
    documents.gate.set()
    with pytest.raises(error):
        await service.embed_documents(["good", bad])
    assert await service.embed_documents(["good"]) == [expected("good")]
    await service.close()


async def test_a_text_without_vector_does_not_fail_the_other_callers_of_its_batch() -> None:
    documents, _, service = opened(batch_size=8)
    held = asyncio.create_task(service.embed_documents(["held"] * 16))
    await until(lambda: len(documents.asked) == 2)
    good = asyncio.create_task(service.embed_documents(["good"]))
    bad = asyncio.create_task(service.embed_documents(["nan"]))
    await until(lambda: service._lanes.documents.depth == 2)
    documents.gate.set()
    assert await good == [expected("good")]
    with pytest.raises(EmbeddingFailed):
        await bad
    assert ["good", "nan"] in documents.asked
    await held
    await service.close()


async def test_a_cancelled_caller_takes_its_waiting_texts_with_it() -> None:
    documents, _, service = opened(batch_size=1)
    held = asyncio.create_task(service.embed_documents(["a", "b"]))
    await until(lambda: len(documents.asked) == 2)
    gone = asyncio.create_task(service.embed_documents(["gone"]))
    await until(lambda: service._lanes.documents.depth == 1)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    documents.gate.set()
    await held
    await service.close()
    assert ["gone"] not in documents.asked


async def test_close_finishes_what_is_computed_and_refuses_what_waits_and_what_comes() -> None:
    documents, _, service = opened(batch_size=1, queue_limit=2)
    computed = [asyncio.create_task(service.embed_documents([name])) for name in "ab"]
    await until(lambda: len(documents.asked) == 2)
    waiting = [asyncio.create_task(service.embed_documents([name])) for name in "cdef"]
    await until(lambda: service._lanes.documents.depth == 2)
    closing = asyncio.create_task(service.close())
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in found] == [EmbeddingUnavailable] * 4
    documents.gate.set()
    assert await asyncio.gather(*computed) == [[expected("a")], [expected("b")]]
    await closing
    with pytest.raises(EmbeddingUnavailable):
        await service.embed_documents(["later"])
    with pytest.raises(EmbeddingUnavailable):
        await service.embed_query("later")
    await service.close()


async def test_too_many_waiting_questions_are_refused() -> None:
    _, queries, service = opened(queue_limit=2)
    queries.gate.clear()
    waiting = [asyncio.create_task(service.embed_query(name)) for name in "ab"]
    await asyncio.sleep(0)
    with pytest.raises(EmbeddingUnavailable):
        await service.embed_query("c")
    queries.gate.set()
    assert await asyncio.gather(*waiting) == [expected("a"), expected("b")]
    await service.close()


async def test_services_of_another_chunking_share_the_engine() -> None:
    documents, _, service = opened()
    documents.gate.set()
    other = service.with_chunking(10, 0)
    text = "wing slipstream " * 15
    assert len(other.chunks(text)) > len(service.chunks(text))
    assert await other.embed_documents(["shared"]) == [expected("shared")]
    assert documents.asked == [["shared"]]
    await service.close()


async def test_the_loop_goes_on_while_a_long_text_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, service = opened()
    cutting, seen = threading.Event(), threading.Event()

    def slow(_: Chunker, text: str, progress: Any) -> tuple[str, ...]:
        cutting.set()
        assert seen.wait(WAIT_S)  # set by the loop, which must not be blocked
        return (text,)

    monkeypatch.setattr(Chunker, "chunks", slow)
    long = "wing " * 1000
    waiting = asyncio.create_task(service.chunked([long]))
    assert await asyncio.to_thread(cutting.wait, WAIT_S)
    seen.set()
    assert await waiting == [(long,)]
    await service.close()


async def test_progress_is_seen_for_each_vector_and_not_at_the_end_of_a_call_only() -> None:
    documents, _, service = opened(batch_size=2)
    seen: list[bool] = []
    waiting = asyncio.create_task(service.embed_documents(["a", "bb", "ccc"], lambda: seen.append(waiting.done())))
    await asyncio.sleep(0)
    assert seen == []
    documents.gate.set()
    assert await waiting == [expected("a"), expected("bb"), expected("ccc")]
    assert seen == [False] * 3
    await service.close()
