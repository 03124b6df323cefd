"""The sentences on which an exported model is compared with the original, and the comparison."""

from __future__ import annotations

from dataclasses import dataclass

from connectors.embedding.chunking import Chunker
from connectors.embedding.engine import Engine
from connectors.embedding.model import Vectors, cosines
from connectors.errors import Misconfigured

_SHORT = (
    "",
    "a",
    "42",
    "Qdrant",
    "refund policy",
    "How do I reset my password?",
    "What similarity laws must be obeyed by models of heated high-speed aircraft?",
    "The quick brown fox jumps over the lazy dog.",
    "ERROR 1213 (40001): Deadlock found when trying to get lock; try restarting transaction",
    "SELECT id, title FROM articles WHERE published_at > '2024-01-01' ORDER BY published_at DESC LIMIT 10;",
    "def fold(entries):\n    for entry in entries:\n        yield entry.version, entry.content_hash",
    '{"user": {"id": 7, "name": "Ana", "roles": ["admin", "editor"]}, "active": true}',
    "| quarter | revenue | margin |\n|---|---|---|\n| Q1 | 1,204,311 | 31.7 % |",
    "<p>Delivery takes <b>3-5</b> working days.</p>",
    "Die Donaudampfschifffahrtsgesellschaft wurde 1829 gegründet.",
    "El envío es gratuito a partir de cincuenta euros.",
    "Les données personnelles sont conservées pendant trois ans.",
    "人工智能正在改变我们的生活方式。",
    "東京は日本の首都です。",
    "Москва — столица России.",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "🙂🚀🔥 thanks!!!",
    "$E = mc^2$ and $\\int_0^1 x^2 \\, dx = \\frac{1}{3}$",
    "ACGTTGCATGTCGCATGATGCATGAGAGCT",
    "https://example.org/docs/getting-started?lang=en#install",
    "BUY NOW!!! LIMITED OFFER!!! 100% FREE!!!",
    "not good, not bad, not anything",
    "the the the the the the the the the the the the",
    "Patients received 5 mg of the drug twice a day; adverse events were mild and resolved without treatment.",
    "The tenant shall give the landlord written notice no later than thirty days before the end of the term.",
    "Preheat the oven to 180 °C, whisk the eggs with the sugar, and fold in the flour.",
    "An experimental study of a wing in a propeller slipstream was made to find the spanwise distribution of lift.",
    "Inflation slowed to 2.4 percent in March as energy prices fell for the fourth month in a row.",
    "She closed the door quietly, counted to ten, and only then allowed herself to read the letter.",
    "Kafka keeps records in partitions; an offset names a record's place, a consumer group commits how far it read.",
)


@dataclass(frozen=True, slots=True)
class Closeness:
    """Cosine between the exported model's vectors and the original's, over the probe texts."""

    minimum: float
    mean: float


def probe_texts(chunker: Chunker) -> tuple[str, ...]:
    """Return texts of many kinds and lengths, up to a chunk as long as the model's window."""
    prose = " ".join(text for text in _SHORT if len(text) > 60)
    return (*_SHORT, " ".join(_SHORT[29:32]), *chunker.chunks("\n".join(_SHORT)), *chunker.chunks(f"{prose} {prose}"))


def refuse_unless_close(engine: Engine, texts: tuple[str, ...], reference: Vectors, minimum: float) -> Closeness:
    """Compare an engine with the vectors of the original. Raises Misconfigured if a cosine is below the minimum."""
    found = cosines(engine.embed(texts), reference)
    worst = min(range(len(found)), key=lambda i: found[i])
    if not found[worst] >= minimum:
        raise Misconfigured(
            f"the exported model is too far from the original: cosine {found[worst]:.4f} for {texts[worst][:60]!r}, "
            f'minimum_cosine is {minimum}; use engine = "onnx-fp32" or "torch"'
        )
    return Closeness(minimum=found[worst], mean=sum(found) / len(found))
