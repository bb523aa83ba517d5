"""Errors of exports.

ExportError      what was asked for cannot be exported, or answers worse than its engine; field, fault, remedy
"""


class ExportError(RuntimeError):
    """An export that was not made; nothing of it is left."""
