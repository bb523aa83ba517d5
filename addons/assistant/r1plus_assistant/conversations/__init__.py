"""Conversations and memories of end users, and their recall."""
