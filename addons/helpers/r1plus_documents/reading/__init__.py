"""Readers of formats. Each yields blocks and pages that cannot be read, and holds no more than it must."""
