"""The Job that fills a volume with an engine: fetch, verify, rename. Standard library and contract only."""
