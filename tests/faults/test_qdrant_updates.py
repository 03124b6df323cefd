"""Updates that Qdrant's engine acknowledged survive `kill -9`, whatever was flushed to disk before."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS, CYCLES, FLUSH_S = 30, 5, 0.15
# Writes rising versions of a few documents until it is killed. Prints each version after the engine has accepted it.
WRITER = f"""
import random, sys, time
from pathlib import Path
from connectors.qdrant.engine.shard import Shard
from tests.contract.vector_stores import document

folder, version, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[2]))
shard = Shard.open("c", folder) if (folder / "collection.json").exists() else Shard.create("c", folder, 4)
flushed = time.monotonic()
while True:
    version += 1
    name, chunks = f"d{{rng.randrange({DOCUMENTS})}}", rng.randrange(5)
    shard.write(document(name, version, [(1, version % 7, 0, 1)] * chunks, tombstones=range(chunks, 4)))
    print(name, version, flush=True)
    if time.monotonic() - flushed > {FLUSH_S}:
        shard.flush()
        flushed = time.monotonic()
"""

# Reads, and ends without a flush: what the engine read back from its log must still be there for the next process.
READER = """
import json, sys
from msgspec.structs import asdict
from pathlib import Path
from connectors.qdrant.engine.shard import Shard
from domain.points import payload_checksum, vector_checksums

stored = Shard.open("c", Path(sys.argv[1])).stored(sys.argv[2:], content=True)
for name, points in stored.items():
    for point in points:
        assert point.checksum == payload_checksum({**asdict(point), "document_id": name}), (name, point)
        if point.vector:
            assert abs(point.vector_checksum - vector_checksums([point.vector])[0]) < 1e-6, (name, point)
print(json.dumps({name: [point.version for point in points] for name, points in stored.items()}), flush=True)

"""


def stored_versions(folder: Path, names: list[str]) -> dict[str, list[int]]:
    command = [sys.executable, "-c", READER, str(folder), *names]
    found: dict[str, list[int]] = json.loads(subprocess.check_output(command, cwd=ROOT, text=True))
    return found


def written_until_killed(folder: Path, version: int, seconds: float) -> dict[str, int]:
    """Kill the writer `seconds` after its first version; return the last version of each document that it printed."""
    command = [sys.executable, "-c", WRITER, str(folder), str(version)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        reported: dict[str, int] = {}
        ends = None
        for line in writer.stdout:
            if not line.endswith("\n"):
                break
            name, last = line.split()
            reported[name] = int(last)
            ends = ends or time.monotonic() + seconds
            if time.monotonic() > ends:
                writer.kill()
        assert reported
        return reported


def test_acknowledged_updates_survive_kills_between_flushes(tmp_path: Path) -> None:
    rng = random.Random(1)
    acknowledged: dict[str, int] = {}
    for _ in range(CYCLES):
        begin = max(acknowledged.values(), default=0) + 10  # versions that were written and not printed may exist too
        acknowledged |= written_until_killed(tmp_path / "c", begin, rng.uniform(0.2, 0.7))
        stored = stored_versions(tmp_path / "c", sorted(acknowledged))
        lost = {
            name: (version, stored.get(name))
            for name, version in acknowledged.items()
            if min(stored.get(name, [-1])) < version
        }
        assert lost == {}
