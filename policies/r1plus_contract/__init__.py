"""Names and types that cross rooms: what two programs must agree on to work together.

Standard library only, so that the smallest image (Triton's) can carry it.
"""
