"""Foreign text, made safe to show."""


def to_printable(text: str) -> str:
    """Replace characters that control a terminal: a pod or a tenant may have written the text."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)
