"""The gateway's side of the embedder: a client. No vector is computed here."""
