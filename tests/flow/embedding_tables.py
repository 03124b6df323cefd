"""Tables with precomputed embeddings, in every format of both databases, and the vectors in them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.settings import Connector
from tests.flow.site import Table

DIMENSION = 384
LONG_TEXT = " ".join(f"Sentence {n} of a text that no window of the model can hold as a whole." for n in range(60))

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Form:
    """One format of an embedding column: its SQL type, and how a vector is written to it and read from it."""

    name: str
    connector: Connector
    sql_type: str

    def literal(self, vector: Vector) -> str:
        if self.name == "float32":
            digits = vector.astype("<f4").tobytes().hex()
            return f"x'{digits}'" if self.connector == "mariadb" else f"'\\x{digits}'"
        return f"'{json.dumps(vector.tolist())}'"

    @property
    def select(self) -> str:
        return "e" if self.name == "float32" or self.connector == "mariadb" else "e::text"

    def parse(self, value: str | bytes) -> Vector:
        if isinstance(value, bytes):
            return np.frombuffer(value, dtype="<f4")
        return np.asarray(json.loads(value), dtype="<f4")


FORMS = (
    Form("pgvector", "postgres", f"vector({DIMENSION})"),
    Form("json", "postgres", "jsonb"),
    Form("float32", "postgres", "bytea"),
    Form("json", "mariadb", "json"),
    Form("float32", "mariadb", "blob"),
)


def some_vector(seed: int, length: float = 1.0) -> Vector:
    """Return a vector of the given length in a random direction."""
    vector = np.random.default_rng(seed).normal(size=DIMENSION)
    return np.asarray(length * vector / np.linalg.norm(vector), dtype="<f4")


def unit(vector: Vector) -> Vector:
    """Return the vector with the length that Qdrant stores for cosine distance."""
    return np.asarray(vector / np.linalg.norm(vector), dtype="<f4")


GIVEN = {"given-0": some_vector(0), "given-1": some_vector(1), "longer": some_vector(2, length=3.0)}
COMPUTED = {"computed-0": "A row without an embedding.", "computed-1": "Another row without one."}


def _table(form: Form) -> Table:
    key = 'id text collate "C"' if form.connector == "postgres" else "id varchar(200) collate utf8mb4_nopad_bin"
    rows = [f"('{name}', 'The text of {name}.', {form.literal(vector)})" for name, vector in GIVEN.items()]
    rows += [f"('{name}', '{text}', null)" for name, text in COMPUTED.items()]
    rows.append(f"('changing', 'The text of a row whose embedding changes.', {form.literal(some_vector(6))})")
    rows.append(f"('given-long', '{LONG_TEXT}', {form.literal(some_vector(3))})")
    if form.name != "pgvector":
        rows.append(f"('other-model', '{LONG_TEXT}', {form.literal(np.asarray([1, 2, 3], dtype='<f4'))})")
    return Table(
        form.name,
        form.connector,
        f"create table {{t}} ({key} primary key, body text, e {form.sql_type})",
        f'text = ["body"]\nembedding = {{ column = "e", format = "{form.name}" }}\n',
        tuple(rows),
    )


EMBEDDING_TABLES = tuple(_table(form) for form in FORMS)


def _many(connector: Connector, count: int) -> Table:
    """Return a table of many rows with precomputed embeddings, so that nothing waits for a model."""
    form = next(form for form in FORMS if form.connector == connector and form.name == "float32")
    key = 'id text collate "C"' if connector == "postgres" else "id varchar(200) collate utf8mb4_nopad_bin"
    return Table(
        "damaged",
        connector,
        f"create table {{t}} ({key} primary key, body text, line int, e {form.sql_type})",
        'text = ["body"]\nmetadata = ["line"]\nembedding = { column = "e", format = "float32" }\n',
        tuple(f"('row-{n:04}', 'The text of row {n}.', {n}, {form.literal(some_vector(n))})" for n in range(count)),
    )


DAMAGED_TABLES = (_many("postgres", 600), _many("mariadb", 600))
