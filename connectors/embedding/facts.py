"""Facts about a model, read from its files without loading it: enough to find a mistake before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

# BERT-like tokenizers put one token before a text and one after it.
_SPECIAL_TOKENS = 2


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Length of a vector, and number of text tokens that the model reads at once. None if the files do not say."""

    dimension: int | None
    window: int | None


def read_facts(folder: Path) -> ModelFacts:
    """Return the facts in a sentence-transformers folder. A fact that is missing or unreadable is None."""
    modules = _read(folder / "modules.json")
    dense = not isinstance(modules, list) or any(str(module.get("type")).endswith(".Dense") for module in modules)
    pooling = _read(folder / "1_Pooling" / "config.json")
    # A dense layer after the pooling changes the length of the vectors.
    dimension = None if dense or not isinstance(pooling, dict) else pooling.get("word_embedding_dimension")
    transformer = _read(folder / "sentence_bert_config.json")
    length = transformer.get("max_seq_length") if isinstance(transformer, dict) else None
    return ModelFacts(
        dimension if isinstance(dimension, int) else None,
        length - _SPECIAL_TOKENS if isinstance(length, int) else None,
    )


def _read(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
