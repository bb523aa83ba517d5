"""The language of expressions: text to a bounded syntax tree and back. The gateway reads it too: no SymPy here."""
