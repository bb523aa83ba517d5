"""Bundles for machines without a network: written, signed, read and installed."""
