"""Tokens to text as they come: whole characters only, and nothing of a stop string.

A token may end in the middle of a character, and a stop string may begin in one token and end in another. So what might
still become something else is held back until it is decided.
"""

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"


class AnswerText:
    """The text of one answer. `push` returns what may be sent now, `finish` what is left."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: tuple[str, ...] = ()) -> None:
        self._decode = decode
        self._stop = stop
        self._ids: list[int] = []
        # Decoding restarts at `_window`, a character border at or before `_read`; what lies before `_read` was taken.
        self._window = 0
        self._read = 0
        self._held = ""
        self.stopped = False
        """True once a stop string has appeared; nothing comes after it."""

    def push(self, ids: Sequence[int]) -> str:
        """Take new tokens; the text that no later token can change."""
        if self.stopped:
            return ""
        self._ids.extend(ids)
        taken, text = self._ends()
        # A decoder shows an unfinished character as U+FFFD at the end, or not at all.
        if len(text) <= len(taken) or text.endswith(REPLACEMENT):
            return ""
        self._window, self._read = self._read, len(self._ids)
        return self._until_stop(text[len(taken) :])

    def finish(self) -> str:
        """The rest: what was held back, without a character that never became whole."""
        if self.stopped:
            return ""
        taken, text = self._ends()
        self._read = self._window = len(self._ids)
        rest = self._until_stop(text[len(taken) :].rstrip(REPLACEMENT))
        held, self._held = self._held, ""
        return rest + held

    def _ends(self) -> tuple[str, str]:
        return self._decode(self._ids[self._window : self._read]), self._decode(self._ids[self._window :])

    def _until_stop(self, new: str) -> str:
        text, self._held = self._held + new, ""
        # The first to be complete counts, so that it does not matter how the text was cut into tokens.
        found = [(place + len(stop), place) for stop in self._stop if (place := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return text[: min(found)[1]]
        keep = max((_beginning(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _beginning(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
