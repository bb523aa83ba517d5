"""The verbs of `r1plus` that show what the registry recorded. The registry itself is `r1plus_registry`."""
