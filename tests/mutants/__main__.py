"""`make mutants`: a table of the mutants, with the seed and the violation that caught each."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from tests.mutants.catch import MOST_SEEDS, catch_all
from tests.mutants.mutants import MUTANTS


def main() -> int:
    """Print the table and caught/total; return exit code 1 if a mutant was not caught."""
    table = Table("mutant", "what it breaks", "seed", "caught by")
    found = {caught.name: caught for caught in catch_all()}
    for mutant in MUTANTS:
        caught = found[mutant.name]
        seed = "-" if caught.seed is None else str(caught.seed)
        table.add_row(mutant.name, mutant.breaks, seed, caught.violation or f"nothing, in {MOST_SEEDS} histories")
    Console(width=160).print(table)
    number = sum(caught.seed is not None for caught in found.values())
    print(f"{number}/{len(MUTANTS)} mutants caught")
    return 0 if number == len(MUTANTS) else 1


if __name__ == "__main__":
    sys.exit(main())
