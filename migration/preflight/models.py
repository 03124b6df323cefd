"""The checks of `crossfade config check` that need a collection's model: does it exist, and do the settings fit it?

Loads no model. What the files of the model do not state is not checked.
"""

from __future__ import annotations

import asyncio
from math import ceil

from connectors.embedding.chunking import MINIMUM_TOKENS
from connectors.embedding.facts import ModelFacts, read_facts
from connectors.embedding.locate import BUNDLED, ask_hub, local_model
from connectors.errors import EmbeddingUnavailable, Misconfigured
from domain.legacy import Diagnostic, Setting
from schemas.settings import Collection, Kafka

UNKNOWN = ModelFacts(None, None)
_HUB_BOUND_S = 5.0
_BASE64 = 4 / 3
_CHUNK_KEYS_BYTES = 32


async def check_model(name: str, collection: Collection) -> tuple[ModelFacts, list[Diagnostic]]:
    """Return the facts of a collection's model, and what is wrong with its name."""
    remedy = Setting(
        f'crossfade.toml: [collections.{name}] model = "{next(iter(BUNDLED))}", a folder, or a name on the hub'
    )
    try:
        folder = await asyncio.to_thread(local_model, collection.model)
        if folder is not None:
            return await asyncio.to_thread(read_facts, folder), []
        await asyncio.to_thread(ask_hub, collection.model, _HUB_BOUND_S)
    except Misconfigured as error:
        return UNKNOWN, [Diagnostic("error", name, str(error), remedy)]
    except EmbeddingUnavailable as error:
        return UNKNOWN, [Diagnostic("error", name, str(error), remedy)]
    return UNKNOWN, [Diagnostic("warning", name, f"the model {collection.model} will be downloaded at the first start")]


def check_chunking(name: str, collection: Collection, facts: ModelFacts) -> list[Diagnostic]:
    """Return what is wrong with the chunking, given how many tokens the model reads at once."""
    findings: list[Diagnostic] = []
    section = f"crossfade.toml: [collections.{name}]"
    wanted, window = collection.chunk_tokens, facts.window
    if 0 < wanted < MINIMUM_TOKENS:
        message = f"chunk_tokens is {wanted}, the least is {MINIMUM_TOKENS}"
        findings.append(Diagnostic("error", name, message, Setting(f"{section} chunk_tokens = {window or 128}")))
    if window is not None and wanted > window:
        message = f"chunk_tokens is {wanted}, {collection.model} reads {window}: chunks will have {window}"
        findings.append(Diagnostic("warning", name, message, Setting(f"{section} chunk_tokens = {window}")))
    tokens = min(size for size in (wanted or window, window or wanted) if size is not None) if wanted or window else 0
    if tokens and collection.chunk_overlap >= tokens:
        message = f"chunk_overlap must be below chunk_tokens: it is {collection.chunk_overlap} of {tokens}"
        findings.append(Diagnostic("error", name, message, Setting(f"{section} chunk_overlap = {tokens // 8}")))
    return findings


def check_record(name: str, collection: Collection, facts: ModelFacts, kafka: Kafka) -> list[Diagnostic]:
    """Return a warning if the longest text may not fit into one record together with its vectors.

    The estimate counts one token per character, the most that a tokenizer makes of a text. It assumes no character that
    JSON escapes.
    """
    tokens = min(collection.chunk_tokens or facts.window or 0, facts.window or 0)
    step = tokens - collection.chunk_overlap
    if facts.dimension is None or step <= 0:
        return []
    chunk_bytes = tokens + ceil(4 * facts.dimension * _BASE64) + _CHUNK_KEYS_BYTES
    needed = ceil(kafka.max_text_bytes / step) * chunk_bytes
    if needed <= kafka.max_record_bytes:
        return []
    message = (
        f"a text of {kafka.max_text_bytes} bytes may make a record of {needed} with its vectors, above "
        f"kafka.max_record_bytes {kafka.max_record_bytes}: such a document would become a dead letter"
    )
    fitting = kafka.max_record_bytes // chunk_bytes * step
    remedy = Setting(f"crossfade.toml: [kafka] max_record_bytes = {needed}, or max_text_bytes = {fitting}")
    return [Diagnostic("warning", name, message, remedy)]
