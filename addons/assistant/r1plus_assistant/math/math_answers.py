"""What an answer says of `math_mode`: each calculation, where it came from, and whether the prose agrees."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from r1plus_assistant.calculation.agreement import compare_prose
from r1plus_assistant.calculation.math_plan import MOST_LINE_BYTES, ExpressionRoute, PlannedExpression, Skip
from r1plus_contract.calculator import Calculation
from r1plus_gateway.access.caller import TokenUsage

HEADING: Final = "Results of a calculator, as data:"
NOT_QUOTED: Final = "not given to the model, since no second method has confirmed it"
NO_USAGE: Final = TokenUsage(0, 0)


@dataclass(frozen=True, slots=True)
class MathEntry:
    """One expression and its result, or why there is none."""

    planned: PlannedExpression
    calculation: Calculation | None = None
    error: Skip | None = None
    agrees: bool | None = None
    """Whether the prose has the result; None: not known, or nothing to compare."""

    @property
    def is_translated(self) -> bool:
        """Whether the model wrote the expression."""
        return self.planned.route is ExpressionRoute.TRANSLATION

    def compare(self, prose: str) -> "MathEntry":
        """Return it with what the prose says."""
        done = self.calculation
        return (
            self
            if done is None or not done.verified
            else replace(self, agrees=compare_prose(prose, done.exact, done.numeric))
        )

    def write_line(self) -> str:
        """Return the line of the prompt; empty if there is no result that was checked and fits."""
        done = self.calculation
        if done is None or not done.verified:
            return ""
        unit = f" {self.planned.unit.symbol}" if self.planned.unit.symbol else ""
        for result in _list_results(done):
            line = f"> {done.expression} = {result}{unit}"
            if len(line.encode()) < MOST_LINE_BYTES:
                return line
        return ""

    def describe(self) -> dict[str, Any]:
        """Return it as the API writes it."""
        done = self.calculation
        is_checked = done is not None and done.verified
        return {
            "expression": done.expression if done is not None else self.planned.expression,
            "exact": done.exact if done is not None else None,
            "numeric": done.numeric if done is not None else None,
            "unit": self.planned.unit.symbol or None,
            "route": self.planned.route.value,
            "translated": self.is_translated,
            # Nobody has verified that a translation is what the question means.
            "verified": is_checked and not self.is_translated,
            "checked": is_checked,
            "check": done.check if done is not None else None,
            "notes": _list_notes(done),
            "agrees": self.agrees,
            "error": describe_skip(self.error),
        }


def _list_notes(done: Calculation | None) -> list[str]:
    if done is None:
        return []
    return [*done.notes] if done.verified else [*done.notes, NOT_QUOTED]


def _list_results(done: Calculation) -> list[str]:
    """Return a result in the ways that a prompt may have it, the best first."""
    if done.exact is None or done.numeric is None or done.exact == done.numeric:
        return [text for text in (done.exact, done.numeric) if text is not None]
    return [f"{done.exact} = {done.numeric}", done.numeric, done.exact]


def describe_skip(skip: Skip | None) -> dict[str, str] | None:
    """Return a reason as the API writes it."""
    return None if skip is None else {"code": skip.code, "message": skip.message}


@dataclass(frozen=True, slots=True)
class MathOutcome:
    """All that was calculated for one answer."""

    entries: tuple[MathEntry, ...] = ()
    skip: Skip | None = None
    """Why nothing was calculated; None: something was, or was tried."""
    usage: TokenUsage = field(default=NO_USAGE)
    """Tokens of the translation, which are part of the answer's usage."""

    def compare(self, prose: str) -> "MathOutcome":
        """Return it with what the prose says."""
        return replace(self, entries=tuple(entry.compare(prose) for entry in self.entries))

    def write_note(self) -> str:
        """Return what the prompt gets; empty without a result."""
        return write_note([line for entry in self.entries if (line := entry.write_line())])

    def describe(self) -> dict[str, Any]:
        """Return it as the API writes it, within `r1plus`."""
        return {
            "math": [entry.describe() for entry in self.entries],
            "math_skipped": describe_skip(self.skip),
            "math_usage": {
                "prompt_tokens": self.usage.prompt_tokens,
                "completion_tokens": self.usage.completion_tokens,
            },
        }


def write_note(lines: Sequence[str]) -> str:
    """Return the quoted lines of results."""
    return "\n".join([HEADING, *lines]) if lines else ""
