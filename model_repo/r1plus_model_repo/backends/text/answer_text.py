"""Conversion of tokens to text while they arrive: whole characters only, and nothing of a stop string.

A token may end in the middle of a character, and a stop string may span tokens. So text that later tokens can change
is held back.
"""

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"


class AnswerText:
    """The text of one answer. `push` returns the text to send now, `finish` the rest."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: tuple[str, ...] = ()) -> None:
        self._decode = decode
        self._stop = stop
        self._ids: list[int] = []
        # Decoding restarts at `_window`, at or before `_read`; text before `_read` was returned.
        self._window = 0
        self._read = 0
        self._pending = ""
        self.is_stopped = False
        """True after a stop string; nothing follows it."""

    def push(self, ids: Sequence[int]) -> str:
        """Add new tokens and return the text that no later token can change."""
        if self.is_stopped:
            return ""
        self._ids.extend(ids)
        prefix, text = self._decode_window()
        # A decoder shows an unfinished character as U+FFFD at the end, or not at all.
        if len(text) <= len(prefix) or text.endswith(REPLACEMENT):
            return ""
        self._window, self._read = self._find_window(), len(self._ids)
        return self._take_until_stop(text[len(prefix) :])

    def finish(self) -> str:
        """Return the rest, without an incomplete character."""
        if self.is_stopped:
            return ""
        prefix, text = self._decode_window()
        self._read = self._window = len(self._ids)
        rest = self._take_until_stop(text[len(prefix) :].rstrip(REPLACEMENT))
        held_text, self._pending = self._pending, ""
        return rest + held_text

    def _find_window(self) -> int:
        """Return where decoding restarts: at the last token if it is text by itself, since engines keep such texts."""
        last = self._decode(self._ids[-1:])
        return self._read if not last or REPLACEMENT in last else len(self._ids) - 1

    def _decode_window(self) -> tuple[str, str]:
        return self._decode(self._ids[self._window : self._read]), self._decode(self._ids[self._window :])

    def _take_until_stop(self, new: str) -> str:
        text, self._pending = self._pending + new, ""
        # The first complete match counts, so that the split into tokens does not matter.
        matches = [(start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0]
        if matches:
            self.is_stopped = True
            return text[: min(matches)[1]]
        keep = max((_measure_overlap(text, stop) for stop in self._stop), default=0)
        self._pending = text[len(text) - keep :]
        return text[: len(text) - keep]


def _measure_overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that is a beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
