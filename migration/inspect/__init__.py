"""Shows one document in its row, ledger, log, points and dead letters: what differs, and why. Changes nothing."""
