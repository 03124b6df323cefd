"""Chunks fit the model's window and lose no text."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.embedding.chunking import Chunker, plain_tokenizer
from connectors.embedding.locate import locate_model
from connectors.errors import EmbeddingFailed, Misconfigured

MODEL = "all-MiniLM-L6-v2"
TOKENIZER = plain_tokenizer((locate_model(MODEL, print) / "tokenizer.json").read_text(encoding="utf-8"))
WORDS = st.sampled_from(
    [
        "wing",
        "slipstream",
        "Kafka",
        "x" * 120,
        "naïve",
        "东京",
        "🙂",
        "don't",
        "3.14",
        "?!",
        "\n\n",
        "\t",
        "snake_case",
        "é",
    ]
)
TEXTS = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=400),
    st.lists(WORDS, max_size=300).map(" ".join),
)


def without_white_space(text: str) -> str:
    return re.sub(r"\s+", "", text)


@settings(max_examples=150, deadline=None)
@given(text=TEXTS, limit=st.integers(8, 60))
def test_without_overlap_chunks_fit_the_limit_and_hold_the_whole_text_in_order(text: str, limit: int) -> None:
    chunker = Chunker(TOKENIZER, limit, 0)
    chunks = chunker.chunks(text)
    assert len(chunks) >= 1
    assert all(chunker.tokens(chunk) <= limit for chunk in chunks)
    assert "".join(map(without_white_space, chunks)) == without_white_space(text)


@settings(max_examples=100, deadline=None)
@given(words=st.lists(st.integers(0, 10_000), min_size=1, max_size=300), overlap=st.integers(1, 15))
def test_with_overlap_every_word_is_in_a_chunk_and_neighbours_leave_no_gap(words: list[int], overlap: int) -> None:
    # Every word is different, so that a chunk is found in one place only.
    text = " ".join(f"w{place:03d}x{number}" for place, number in enumerate(words))
    chunker = Chunker(TOKENIZER, 30, overlap)
    reached = start = 0
    for chunk in chunker.chunks(text):
        assert chunker.tokens(chunk) <= 30
        start = text.index(chunk, start)
        assert not text[reached:start].strip()
        reached = max(reached, start + len(chunk))
    assert reached == len(text)


def test_overlap_makes_neighbours_share_text() -> None:
    text = " ".join(f"word{number}." for number in range(200))
    apart = Chunker(TOKENIZER, 40, 0).chunks(text)
    shared = Chunker(TOKENIZER, 40, 12).chunks(text)
    assert sum(map(len, shared)) > sum(map(len, apart))
    assert all(left.split()[-1] in right for left, right in pairwise(shared))


@pytest.mark.parametrize("text", ["", " ", "\n\t \u2003"])
def test_a_text_without_content_gives_one_empty_chunk(text: str) -> None:
    assert Chunker(TOKENIZER, 20, 0).chunks(text) == ("",)


def test_a_short_text_is_one_chunk_as_it_is() -> None:
    assert Chunker(TOKENIZER, 20, 0).chunks("two  spaces\nand a line") == ("two  spaces\nand a line",)


@pytest.mark.parametrize(("limit", "overlap"), [(0, 0), (7, 0), (20, 20), (20, -1)])
def test_a_chunking_that_cannot_work_is_refused(limit: int, overlap: int) -> None:
    with pytest.raises(Misconfigured):
        Chunker(TOKENIZER, limit, overlap)


def test_a_lone_surrogate_is_a_failure_of_this_text() -> None:
    with pytest.raises(EmbeddingFailed):
        Chunker(TOKENIZER, 20, 0).chunks("\ud800")


@pytest.mark.parametrize("end", ["\n\n", "\n", ". ", " ", ""])
def test_a_long_text_is_cut_section_by_section_with_progress_and_nothing_is_lost(end: str) -> None:
    text = end.join(f"w{number}" for number in range(12_000))
    seen: list[None] = []
    chunker = Chunker(TOKENIZER, 254, 0)
    chunks = chunker.chunks(text, lambda: seen.append(None))
    assert len(seen) >= len(text) // (32 * 1024)
    assert all(chunker.tokens(chunk) <= 254 for chunk in chunks)
    assert "".join(map(without_white_space, chunks)) == without_white_space(text)
