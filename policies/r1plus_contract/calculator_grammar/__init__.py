"""The language of the calculator's expressions: text to a bounded syntax tree and back. The gateway reads it, too."""
