"""Requests and responses without any input or output: what the sync and the async client share."""

from __future__ import annotations

import json
import os
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypedDict

from r1plus_client.errors import APIError, StreamInterruptedError, build_error
from r1plus_client.types import ChatCompletion, Evidence, Generation, MathReport, Message, Model, Usage

ENV_BASE_URL: Final = "R1PLUS_BASE_URL"
ENV_API_KEY: Final = "R1PLUS_API_KEY"

LONGEST_WAIT_SECONDS: Final = 60.0
"""A `Retry-After` above it is left to the caller."""
FIRST_DELAY_SECONDS: Final = 0.5
LONGEST_DELAY_SECONDS: Final = 8.0
RETRIED_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})

GENERATE_PATH: Final = "/v1/generate"
CHAT_PATH: Final = "/v1/chat/completions"
MODELS_PATH: Final = "/v1/models"
USAGE_PATH: Final = "/v1/usage"

MessageLike = Message | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Access:
    """Where the gateway is, and the credential to call it with.

    `token_file` holds a ServiceAccount's token and is read for each request, since Kubernetes rotates it.
    """

    base_url: str
    api_key: str = field(default="", repr=False)
    token_file: Path | None = None
    end_user: str = field(default="", repr=False)
    """Whose stored data are meant; empty: the key's own."""

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(
                f"base_url: {self.base_url!r} is no http(s) URL; for example https://gateway.team-credit.svc"
            )
        if self.api_key and self.token_file:
            raise ValueError("api_key and token_file: give one of them")
        if not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ValueError("api_key: has characters that no key has; was it copied with a line break?")
        if not (self.end_user.isascii() and self.end_user.isprintable()):
            raise ValueError("end_user: has characters that no header has; give an id, as of your own user table")

    @classmethod
    def resolve(cls, base_url: str | None, api_key: str | None, token_file: str | Path | None) -> Access:
        """Fill in from R1PLUS_BASE_URL and R1PLUS_API_KEY what is not given."""
        url = base_url or os.environ.get(ENV_BASE_URL, "")
        if not url:
            raise ValueError(f"base_url: missing; give it, or set {ENV_BASE_URL}")
        if api_key is None and token_file is None:
            api_key = os.environ.get(ENV_API_KEY, "")
        root = url.rstrip("/").removesuffix("/v1")
        return cls(root, (api_key or "").strip(), Path(token_file) if token_file else None)

    def build_headers(self) -> dict[str, str]:
        """Return the headers of one request."""
        credential = self.token_file.read_text(encoding="ascii").strip() if self.token_file else self.api_key
        headers = {"authorization": f"Bearer {credential}"} if credential else {}
        return {**headers, "x-r1plus-end-user": self.end_user} if self.end_user else headers

    def for_end_user(self, end_user: str) -> Access:
        """Return the same access for the stored data of an end user. Raises ValueError for a name that is none."""
        if not end_user or end_user != end_user.strip():  # its header would name nobody, or another one
            raise ValueError("end_user: is empty, or has a space at an end; give an id, as of your own user table")
        return replace(self, end_user=end_user)


class Options(TypedDict, total=False):
    """How to generate. What is absent is the deployment's default; temperature is then 0, as it was measured."""

    max_new_tokens: int
    temperature: float
    top_p: float
    repetition_penalty: float
    seed: int
    stop: Sequence[str] | str
    math_mode: bool
    """Whether the gateway calculates what the question asks for; `math` of the answer says what it did."""
    preset: str
    """`code`, `creative` or `math`: another operating point than the one that was measured."""
    length: int
    """R1's name for `max_new_tokens`; deprecated."""


OPTION_NAMES: Final = frozenset(Options.__annotations__)


def build_generate_body(
    model: str, prompt: str, system: str | None, options: Options, *, stream: bool
) -> dict[str, Any]:
    """Return the body of `POST /v1/generate`."""
    body = {"model": model, "prompt": prompt, "stream": stream, **_build_fields(options, "max_new_tokens")}
    return body if system is None else {**body, "system": system}


def build_chat_body(
    model: str, messages: Sequence[MessageLike], options: Options, extra: Mapping[str, Any] | None, *, stream: bool
) -> dict[str, Any]:
    """Return the body of `POST /v1/chat/completions`. `extra` adds OpenAI's other fields, such as `response_format`."""
    body: dict[str, Any] = {"model": model, "messages": [_build_message(message) for message in messages]}
    body |= _build_fields(options, "max_completion_tokens")
    body |= {"stream": True, "stream_options": {"include_usage": True}} if stream else {"stream": False}
    return body | dict(extra or {})


def parse_generation(headers: Mapping[str, str], body: bytes) -> Generation:
    """Return the answer of a response of `/v1/generate`."""
    answer = json.loads(body)
    return Generation(
        answer["text"],
        answer["finish_reason"],
        parse_usage(answer.get("usage")),
        answer["model"],
        build_evidence(headers, answer.get("system_fingerprint")),
        headers.get("x-request-id", ""),
        parse_math(answer),
    )


def parse_chat(headers: Mapping[str, str], body: bytes) -> ChatCompletion:
    """Return the answer of a response of `/v1/chat/completions`."""
    answer = json.loads(body)
    choice = answer["choices"][0]
    message = choice["message"]
    return ChatCompletion(
        Message(message["role"], message.get("content") or "", tuple(message.get("tool_calls") or ())),
        choice["finish_reason"],
        parse_usage(answer.get("usage")),
        answer["model"],
        build_evidence(headers, answer.get("system_fingerprint")),
        headers.get("x-request-id", ""),
        parse_math(answer),
    )


def parse_math(answer: Mapping[str, Any]) -> MathReport | None:
    """Return what an answer, or the last event of a stream, says of its calculations; None without `math_mode`."""
    report = answer.get("r1plus")
    if not isinstance(report, Mapping) or "math" not in report:
        return None
    return MathReport(tuple(report["math"]), report.get("math_skipped"))


def parse_models(body: bytes) -> tuple[Model, ...]:
    """Return the models of a response of `/v1/models`."""
    return tuple(Model(model["id"], model) for model in json.loads(body)["data"])


def parse_usage(usage: Mapping[str, Any] | None) -> Usage:
    """Return the tokens of a `usage` object; zero where there is none."""
    return Usage(usage["prompt_tokens"], usage["completion_tokens"]) if usage else Usage()


def build_evidence(headers: Mapping[str, str], fingerprint: str | None) -> Evidence:
    """Return what the response's headers and body say about the revision that answered."""
    return Evidence(headers.get("x-r1plus-revision", ""), headers.get("x-r1plus-verdict", ""), fingerprint or "")


def compute_retry_delay(status: int | None, headers: Mapping[str, str], attempt: int) -> float | None:
    """Return the seconds to wait before another try; None to give up.

    `status` is None where no response arrived. `attempt` counts from 1. The gateway's `x-should-retry` and
    `Retry-After` come first; else the delay doubles, with jitter.
    """
    if headers.get("x-should-retry") == "false" or (status is not None and status not in RETRIED_STATUSES):
        return None
    try:
        asked = float(headers.get("retry-after", ""))
    except ValueError:
        delay = min(FIRST_DELAY_SECONDS * 2.0 ** min(attempt - 1, 10), LONGEST_DELAY_SECONDS)
        return delay * random.uniform(0.75, 1.0)  # noqa: S311 - jitter is no secret
    return asked if 0 <= asked <= LONGEST_WAIT_SECONDS else None


class EventDecoder:
    """Cuts a byte stream into server-sent events. Comments, which the gateway sends as heartbeats, are dropped."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the data of each event that is complete now."""
        *events, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        for event in events:
            lines = [line[5:].lstrip(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
            if lines:
                yield b"\n".join(lines)


@dataclass
class StreamState:
    """What a stream has said so far. `is_complete` once it said how the answer ended and closed in order."""

    headers: Mapping[str, str]
    text: str = ""
    finish_reason: str = ""
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    fingerprint: str = ""
    is_complete: bool = False
    math: MathReport | None = None

    def read_event(self, data: bytes) -> str:
        """Take one event in, and return its text, which may be empty.

        Raises:
            StreamInterruptedError: the event is an error.
        """
        if data == b"[DONE]":
            self.is_complete = True
            return ""
        event = json.loads(data)
        if "error" in event:
            error: APIError = build_error(500, self.headers, data)
            raise StreamInterruptedError(
                f"{error} ({len(self.text)} characters had arrived)", text=self.text, code=error.code
            )
        self.model = event.get("model", self.model)
        self.fingerprint = event.get("system_fingerprint") or self.fingerprint
        self.math = parse_math(event) or self.math
        self.usage = parse_usage(event["usage"]) if event.get("usage") else self.usage
        text, reason = _read_delta(event)
        self.finish_reason = reason or self.finish_reason
        self.text += text
        return text

    def close(self) -> None:
        """Check that the stream ended in order.

        Raises:
            StreamInterruptedError: the connection closed before the answer was complete.
        """
        if not self.is_complete:
            raise StreamInterruptedError(
                f"the stream broke off after {len(self.text)} characters: the gateway or the pod has gone; ask again",
                text=self.text,
            )

    @property
    def evidence(self) -> Evidence:
        return build_evidence(self.headers, self.fingerprint)

    @property
    def request_id(self) -> str:
        return self.headers.get("x-request-id", "")


def _read_delta(event: Mapping[str, Any]) -> tuple[str, str]:
    """Return an event's text and finish reason, in the form of either API."""
    if "choices" not in event:
        return event.get("text") or "", event.get("finish_reason") or ""
    if not event["choices"]:
        return "", ""
    choice = event["choices"][0]
    return choice["delta"].get("content") or "", choice.get("finish_reason") or ""


def _build_fields(options: Options, limit_name: str) -> dict[str, Any]:
    """Return the fields of a request. `limit_name` is what its API calls `max_new_tokens`."""
    fields: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if unknown := fields.keys() - OPTION_NAMES:
        raise TypeError(f"unknown option {', '.join(sorted(unknown))}; there are {', '.join(sorted(OPTION_NAMES))}")
    limit, length = fields.pop("max_new_tokens", None), fields.pop("length", None)
    if length is not None:
        warnings.warn("`length` is R1's name: use `max_new_tokens`", DeprecationWarning, stacklevel=4)
        if limit not in (None, length):
            raise ValueError(f"length={length} and max_new_tokens={limit} contradict each other: leave out length")
        limit = length
    if isinstance(fields.get("stop"), str):
        fields["stop"] = [fields["stop"]]
    return fields if limit is None else {limit_name: limit, **fields}


def _build_message(message: MessageLike) -> Mapping[str, Any]:
    if not isinstance(message, Message):
        return message
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    return {**fields, "tool_calls": list(message.tool_calls)} if message.tool_calls else fields
