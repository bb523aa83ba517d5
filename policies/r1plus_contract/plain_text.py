"""Text that somebody else said, before it is shown."""


def plain(text: str) -> str:
    """Return the text without what moves a terminal: much of it was said by a pod or a tenant."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)
