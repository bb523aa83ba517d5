"""Faults of the gateway as a process. What needs PostgreSQL has a server of its own, installed if it is missing."""

from support.registry.servers import cluster, postgresql

__all__ = ["cluster", "postgresql"]
