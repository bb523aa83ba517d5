"""Commands of a tenant: its key, backups and stored content."""
