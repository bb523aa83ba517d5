"""The events of a stream whose text is kept, since something is said of it when it is whole."""

from r1plus_gateway.access.caller import TokenUsage
from r1plus_gateway.http.completions.answers import AnswerEnd, AnswerHead, EventWriter
from r1plus_gateway.http.errors import RequestError


class KeptEvents:
    """See `EventWriter`: another one's events, and their text."""

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
        return b"".join(self._text).decode("utf-8", "replace")

    def build_end(self, head: AnswerHead, end: AnswerEnd) -> bytes:
        """See `EventWriter`."""
        return self._events.build_end(head, end)

    def build_error(self, error: RequestError, usage: TokenUsage) -> bytes:
        """See `EventWriter`."""
        return self._events.build_error(error, usage)
