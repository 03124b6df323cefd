"""The recall of an index: the share of the true nearest neighbours that a search with it finds."""

from __future__ import annotations

from connectors.vector_ports import VectorStore

NEIGHBOURS = 10
_PAGE = 256


async def recall_at_10(vectors: VectorStore, collection: str, questions: int) -> float | None:
    """Return the mean share over stored vectors as questions, None for an empty collection.

    The vectors are those of the first points by id, which is as good as a random choice.
    """
    page = await vectors.scan_ids(collection, None, min(_PAGE, 2 * questions))
    documents = await vectors.points(collection, page.ids)
    stored = (await vectors.stored(collection, [*documents], content=True)).values()
    asked = [point.vector for chunks in stored for point in chunks if point.vector is not None]
    shares: list[float] = []
    for vector in asked[:questions]:
        true = await vectors.neighbours(collection, vector, NEIGHBOURS, exact=True)
        found = await vectors.neighbours(collection, vector, NEIGHBOURS, exact=False)
        shares.append(len({*true} & {*found}) / len(true))
    return sum(shares) / len(shares) if shares else None
