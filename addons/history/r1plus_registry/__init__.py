"""The registry: what ran when, and why it passed or failed its gate. A separate service next to the operator.

    operator -- facts (HTTP) --> service --> unit of work --> repository --> tables       SQLite or PostgreSQL
    people   -- r1plus history --> service: TokenReview, SubjectAccessReview on the CR --> queries

The cluster stays the source of desired state: nothing here is read back to make a decision.
"""
