"""The registry: what ran when, and why it was let in or thrown out. A service of its own beside the operator.

    operator -- facts (HTTP) --> service --> unit of work --> repository --> tables       SQLite or PostgreSQL
    people   -- r1plus history --> service: TokenReview, SubjectAccessReview on the CR --> reading

The cluster stays the source of desired state: nothing here is read back to decide anything.
"""
