"""The Job that fills a volume with an engine: fetch, verify, rename. Contract and cryptography only."""
