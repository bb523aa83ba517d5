"""The gateway's side of the calculator: expressions in texts, and a client. Nothing is computed here."""
