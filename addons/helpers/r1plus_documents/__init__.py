"""Reads documents of tenants, in a process without network and files: text in blocks, with pages and headings."""
