"""What the last proof of each range saw, in files under CROSSFADE_HOME/proofs/COLLECTION, one per range.

If the database's checksums of a range still match those in its file, none of its rows are read: only the digests of
its documents' points are compared. A document that differed has a digest that no points have, so it is read again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

FORMAT = 1


class Part(msgspec.Struct, frozen=True, array_like=True):
    """A few hundred rows (`after`, `upto`]: their checksum before they were read, and a digest of each row's points.

    `digests` holds 16 bytes per document, in the order of `ids`.
    """

    after: str | None
    upto: str | None
    checksum: str
    ids: list[str]
    digests: bytes

    def pairs(self) -> list[tuple[str, bytes]]:
        """Return each document with the digest of its points."""
        return [(name, self.digests[16 * n : 16 * n + 16]) for n, name in enumerate(self.ids)]


class RangeDigests(msgspec.Struct, frozen=True, array_like=True):
    """The digests of one range. `columns` names what the checksums were made of."""

    format: int
    columns: str
    after: str | None
    upto: str | None
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class Digests:
    """The digests of one collection. A file that is damaged or belongs to another range counts as absent."""

    folder: Path
    columns: str

    @classmethod
    def of(cls, home: Path, collection: str, columns: str) -> Digests:
        """Return the digests of a collection whose checksums are made of the given columns."""
        return cls(home / "proofs" / collection, columns)

    def read(self, number: int, after: str | None, upto: str | None) -> Sequence[Part] | None:
        """Return the parts of a range's digests, None if there are none that fit."""
        try:
            kept = msgspec.msgpack.decode(self._path(number).read_bytes(), type=RangeDigests)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        same = (kept.format, kept.columns, kept.after, kept.upto) == (FORMAT, self.columns, after, upto)
        bounds = [after, *(part.upto for part in kept.parts)]
        follow = all(part.after == bound for part, bound in zip(kept.parts, bounds, strict=False))
        whole = follow and bounds[-1] == upto
        return kept.parts if same and whole else None

    def write(self, number: int, after: str | None, upto: str | None, parts: Sequence[Part]) -> None:
        """Store the digests of a range in one step: a kill leaves either the old file or the new one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(number)
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.msgpack.encode(RangeDigests(FORMAT, self.columns, after, upto, list(parts))))
        os.replace(fresh, path)

    def forget(self, number: int) -> None:
        """Remove the digests of a range that is no longer proved equal."""
        with contextlib.suppress(FileNotFoundError):
            self._path(number).unlink()

    def clear(self) -> None:
        """Remove all digests of the collection."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.range"
