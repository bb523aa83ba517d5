"""`r1plus advise`: what each engine reaches on a golden suite, and what it costs. Called by `advise`.

A trial is an `r1plus serve` of its own, so gate, scorer and plan are those of the edge tier. Here are only the order of
trials, what is kept of them, and what follows from it.
"""
