"""What the gateway answers, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request, as the engine counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Evidence:
    """What answered. `verdict` is that of the pod which answered; `unverified` where it could not be read."""

    revision: str = ""
    verdict: str = ""
    fingerprint: str = ""
    """The revision and the digest of its engine: answers with one fingerprint come from the same files."""


@dataclass(frozen=True, slots=True)
class MathReport:
    """What `math_mode` has calculated for an answer: see `docs/math.md` for the fields of an entry."""

    entries: tuple[Mapping[str, Any], ...] = ()
    skipped: Mapping[str, str] | None = None
    """Code and message, where nothing was calculated."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A complete answer to `generate`. `finish_reason` is `stop` or `length`."""

    text: str
    finish_reason: str
    usage: Usage
    model: str
    evidence: Evidence
    request_id: str
    math: MathReport | None = None
    """None: `math_mode` was off."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat. `tool_calls` has OpenAI's form."""

    role: str
    content: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class ChatCompletion:
    """A complete answer to `chat`. `finish_reason` is `stop`, `length` or `tool_calls`."""

    message: Message
    finish_reason: str
    usage: Usage
    model: str
    evidence: Evidence
    request_id: str
    math: MathReport | None = None
    """None: `math_mode` was off."""

    @property
    def text(self) -> str:
        return self.message.content


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the caller may use. `details` holds all that the gateway says about it."""

    id: str
    details: Mapping[str, Any] = field(default_factory=dict)
