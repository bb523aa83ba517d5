"""The events of a stream under `math_mode`: its text is kept, and compared with the results before the last event."""

from dataclasses import replace

from r1plus_gateway.access.caller import Usage
from r1plus_gateway.http.answers import AnswerEnd, AnswerHead, EventWriter
from r1plus_gateway.http.errors import RequestError


def compare_prose(head: AnswerHead, text: str) -> AnswerHead:
    """Return the head with what a whole text says of the results."""
    return head if head.math is None else replace(head, math=head.math.compare(text))


class ComparedEvents:
    """See `EventWriter`: another one's events, and what their text says of the results."""

    def __init__(self, events: EventWriter) -> None:
        self._events = events
        self._text: list[bytes] = []

    def build_first(self) -> bytes:
        """See `EventWriter`."""
        return self._events.build_first()

    def build_piece(self, text: bytes) -> bytes:
        """See `EventWriter`."""
        self._text.append(text)
        return self._events.build_piece(text)

    def build_tool_answer(self, text: str) -> bytes:
        """See `EventWriter`."""
        return self._events.build_tool_answer(text)

    def read_text(self) -> str:
        """See `EventWriter`."""
        return self._events.read_text()

    def build_end(self, head: AnswerHead, end: AnswerEnd) -> bytes:
        """See `EventWriter`."""
        return self._events.build_end(compare_prose(head, b"".join(self._text).decode("utf-8", "replace")), end)

    def build_error(self, error: RequestError, usage: Usage) -> bytes:
        """See `EventWriter`."""
        return self._events.build_error(error, usage)
