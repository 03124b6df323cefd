"""The content of a document and its hash. Pure values, independent of the source of a document."""

from __future__ import annotations

from hashlib import blake2b

import orjson
from pydantic import BaseModel, ConfigDict

Scalar = str | int | float | bool | None
TENANT_CHARACTERS = 128


class Content(BaseModel):
    """One document as both stores must hold it.

    `text` maps each text column of the collection to its value (None is SQL NULL). `metadata` maps metadata columns to
    canonical scalars (see `schemas.values`). `embedding` is a precomputed embedding from the producer or the table, as
    little-endian float32 bytes. It is kept instead of a computed vector; `embedding_model` names the model behind it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_bytes="base64", val_json_bytes="base64")

    tenant: str = "default"
    text: dict[str, str | None]
    metadata: dict[str, Scalar] = {}
    embedding: bytes | None = None
    embedding_model: str | None = None

    def text_bytes(self) -> int:
        """Return the total size of all text columns in bytes, which `kafka.max_text_bytes` limits."""
        return sum([len(value.encode()) for value in self.text.values() if value])

    def metadata_bytes(self) -> int:
        """Return the total size of all metadata in bytes, which `kafka.max_text_bytes` also limits."""
        return sum([len(value.encode()) for value in self.metadata.values() if isinstance(value, str)])

    def above(self, limit: int) -> tuple[str, int] | None:
        """Return the part above a limit, `text` or `metadata`, and its bytes; None if neither is."""
        parts = (("text", self.text_bytes()), ("metadata", self.metadata_bytes()))
        return next((part for part in parts if part[1] > limit), None)

    def refusal(self, max_text_bytes: int | None) -> str:
        """Return why Qdrant cannot hold the document, without any of its values, or the empty text if it can.

        Only a table can bring such a document: a producer's event is refused earlier.
        """
        above = self.above(max_text_bytes) if max_text_bytes is not None else None
        if above is not None:
            return f"{above[0]} too long: {above[1]} bytes, kafka.max_text_bytes is {max_text_bytes}"
        if len(self.tenant) > TENANT_CHARACTERS:
            return f"tenant too long: {len(self.tenant)} characters, the limit is {TENANT_CHARACTERS}"
        return ""

    def full_text(self) -> str:
        """Return the text columns in order, joined by a blank line. NULL and empty columns are left out."""
        return "\n\n".join(value for value in self.text.values() if value)


def content_hash(content: Content) -> str:
    """Return 32 hex digits (BLAKE2b, 128 bit) over tenant, text and metadata.

    NULL equals an absent value, and NULL equals empty text, because stores differ in which of the two they keep. The
    embedding is not hashed: the same document embedded by another model is still the same document.
    """
    canonical = orjson.dumps(
        [
            content.tenant,
            {name: value for name, value in content.text.items() if value},
            {name: value for name, value in content.metadata.items() if value is not None},
        ],
        option=orjson.OPT_SORT_KEYS,
    )
    return blake2b(canonical, digest_size=16).hexdigest()
