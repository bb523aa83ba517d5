"""Stored content as values, its books, and what was decrypted of it."""
