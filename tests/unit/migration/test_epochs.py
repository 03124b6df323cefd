"""The epochs that all databases of an installation share."""

from __future__ import annotations

from migration.epochs import Epochs, epochs_of, share
from tests.unit.agents.parts import World


async def test_a_database_that_comes_after_an_adoption_knows_its_epochs_and_none_goes_back() -> None:
    earlier, later = World(), World()
    await share(Epochs(2, 3), {"earlier": earlier.ports})
    assert await epochs_of([later.ports.ledger]) == Epochs()
    await share(await epochs_of([earlier.ports.ledger, later.ports.ledger]), {"later": later.ports})
    assert await epochs_of([later.ports.ledger]) == Epochs(2, 3)
    await share(Epochs(), {"later": later.ports})
    assert await epochs_of([later.ports.ledger]) == Epochs(2, 3)
