"""Retention and erasure of stored content."""
