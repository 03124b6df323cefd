"""Real texts for benchmarks: the Cranfield abstracts if present, else docstrings of Python's standard library."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from operations.demo.corpus import pages

_CRANFIELD = Path(__file__).resolve().parents[2] / "shared" / "data" / "cranfield"
# A docstring shorter than this does not count as a document.
_SHORTEST = 80
_PAGES = 20_000


def documents(limit: int) -> list[str]:
    """Return up to `limit` texts, the same ones every time."""
    return list(islice(_abstracts() if _CRANFIELD.is_dir() else _docstrings(), limit))


def questions() -> list[str]:
    """Return questions that the texts can answer."""
    path = _CRANFIELD / "queries.jsonl"
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            return [json.loads(line)["text"] for line in lines]
    return [page.title for page in pages(200)]


def mean_bytes(texts: Sequence[str]) -> int:
    """Return the mean length of texts, in bytes of UTF-8."""
    return round(sum(len(text.encode()) for text in texts) / len(texts))


def _abstracts() -> Iterator[str]:
    with (_CRANFIELD / "documents.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["body"]


def _docstrings() -> Iterator[str]:
    return (page.body for page in pages(_PAGES) if len(page.body) >= _SHORTEST)
