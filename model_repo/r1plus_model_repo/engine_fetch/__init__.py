"""The Job that fetches an engine onto a volume: download, verify, rename. Imports only contract and cryptography."""
