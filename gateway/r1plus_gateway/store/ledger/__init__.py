"""The ledger: limits, reservations, usage, and the one writer."""
