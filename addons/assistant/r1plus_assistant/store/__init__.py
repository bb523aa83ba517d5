"""Reads and changes of stored content and knowledge. Tables, erasure and backup are the core's: `store`."""
