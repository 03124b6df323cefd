"""The in-memory embedder is deterministic, puts texts with shared words close together, and counts what it embeds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.embedding.memory import HashingEmbedder
from connectors.errors import EmbeddingUnavailable, Misconfigured


async def test_vectors_are_unit_little_endian_floats_and_the_calls_are_counted() -> None:
    embedder = HashingEmbedder(dimension=16)
    vectors = await embedder.embed_documents(["a wing", "", "🙂"])
    assert [len(vector) for vector in vectors] == [64, 64, 64]
    for vector in vectors:
        assert np.linalg.norm(np.frombuffer(vector, dtype="<f4")) == pytest.approx(1)
    assert await embedder.embed_query("a wing") == vectors[0]
    assert (embedder.documents_embedded, embedder.queries_embedded) == (3, 1)


async def test_a_text_that_shares_words_is_nearer() -> None:
    embedder = HashingEmbedder(dimension=512)
    query = np.frombuffer(await embedder.embed_query("lift of a wing"), dtype="<f4")
    near, far = await embedder.embed_documents(["the lift of the wing was measured", "bake the cake slowly"])
    assert query @ np.frombuffer(near, dtype="<f4") > query @ np.frombuffer(far, dtype="<f4")


@given(words=st.integers(0, 60), size=st.integers(1, 12), data=st.data())
def test_chunks_hold_every_word(words: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    text = " ".join(f"w{number}" for number in range(words))
    chunks = HashingEmbedder(chunk_words=size, overlap_words=overlap).chunks(text)
    assert len(chunks) >= 1
    assert all(len(chunk.split()) <= size for chunk in chunks)
    assert list(dict.fromkeys(word for chunk in chunks for word in chunk.split())) == text.split()


async def test_after_close_every_call_is_refused() -> None:
    embedder = HashingEmbedder()
    await embedder.close()
    with pytest.raises(EmbeddingUnavailable):
        await embedder.embed_query("late")
    with pytest.raises(EmbeddingUnavailable):
        await embedder.embed_documents(["late"])


def test_an_overlap_as_long_as_the_chunk_is_refused() -> None:
    with pytest.raises(Misconfigured):
        HashingEmbedder(chunk_words=5, overlap_words=5)


async def test_texts_are_cut_together_as_each_is_alone() -> None:
    embedder = HashingEmbedder(chunk_words=2)
    assert await embedder.chunked(["one two three", ""]) == [embedder.chunks("one two three"), ("",)]
