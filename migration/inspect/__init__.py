"""One document in every place: row, ledger, log, points, dead letters; what differs, and why. Changes nothing."""
