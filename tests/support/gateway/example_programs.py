"""Programs that were run, as examples in a request: a small model writes none that is right without."""

from typing import Any, Final


def show_program(question: str, code: str, printed: str) -> list[Any]:
    """Return a question that a program has answered."""
    return [
        {"role": "user", "content": question},
        {"type": "code_interpreter_call", "code": code, "outputs": [{"type": "logs", "logs": printed}]},
        {"role": "assistant", "content": printed},
    ]


PRINTING: Final = [
    *show_program("Print 2 * 3.", "print(2 * 3)", "6"),
    *show_program("Print 5 * 4.", "print(5 * 4)", "20"),
]
"""For a question such as `Print 6 * 7.`"""
