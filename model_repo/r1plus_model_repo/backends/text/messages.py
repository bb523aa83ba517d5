"""The input `messages`: a conversation, to which the engine applies its chat template."""

from dataclasses import dataclass
from typing import Any, Final

from r1plus_contract.inference import MESSAGES, MOST_MESSAGES, Role
from r1plus_model_repo.backends.json_input import load_json

MOST_PROBLEMS: Final = 5
"""Problems of messages that one error lists."""
BYTES_PER_CHARACTER: Final = 6
"""Most bytes of a character in JSON: an escape, such as that of a control character."""
BYTES_PER_MESSAGE: Final = 64
"""Bytes that a message takes in JSON beside its text, generously."""
_FIELDS: Final = ("role", "content")


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation."""

    role: Role
    content: str


def measure_json_limit(content_bytes: int) -> int:
    """Return the most bytes of `messages` whose contents have this many."""
    return BYTES_PER_CHARACTER * content_bytes + BYTES_PER_MESSAGE * MOST_MESSAGES


def parse_messages(text: str, context: int, problems: list[str]) -> tuple[ChatMessage, ...]:
    """Return the messages. Add what is wrong to `problems`, each with its place, such as `messages[2].role`."""
    try:
        value = load_json(text)
    except ValueError as error:
        problems.append(f"{MESSAGES}: {error}")
        return ()
    if not isinstance(value, list):
        problems.append(f"{MESSAGES}: is {_name_type(value)}; send an array of objects with role and content")
        return ()
    if not value:
        problems.append(f"{MESSAGES}: is empty; send at least one message")
    # Each message takes at least one token, so more than the context has can never be served.
    if len(value) > (limit := min(MOST_MESSAGES, context)):
        of_context = "" if limit == MOST_MESSAGES else f", the tokens of the context of {context}"
        problems.append(f"{MESSAGES}: {len(value)} messages exceed {limit}{of_context}; leave out the oldest")
        return ()
    message_problems = [problem for place, item in enumerate(value) for problem in _find_problems(place, item)]
    more = len(message_problems) - MOST_PROBLEMS
    problems += [
        *message_problems[: MOST_PROBLEMS + (more == 1)],
        *((f"{MESSAGES}: {more} more problems like these",) if more > 1 else ()),
    ]
    return () if message_problems else tuple(ChatMessage(Role(item["role"]), item["content"]) for item in value)


def _find_problems(place: int, item: Any) -> list[str]:
    name = f"{MESSAGES}[{place}]"
    if not isinstance(item, dict):
        return [f"{name}: is {_name_type(item)}; send an object with role and content"]
    message_problems = [f"{name}.{field}: missing" for field in _FIELDS if field not in item]
    message_problems += [
        f"{name}.{field!s:.40}: unknown field; a message has role and content" for field in item if field not in _FIELDS
    ]
    role, content = item.get("role", Role.USER), item.get("content", "")
    if not isinstance(role, str):
        message_problems.append(f"{name}.role: is {_name_type(role)}; send one of {', '.join(Role)}")
    elif role not in list(Role):
        message_problems.append(f"{name}.role: {role!r:.40} is not one of {', '.join(Role)}")
    if not isinstance(content, str):
        message_problems.append(f"{name}.content: is {_name_type(content)}; send text")
    elif (place_of_half := find_surrogate(content)) is not None:
        message_problems.append(
            f"{name}.content: has half a character (a lone surrogate) at {place_of_half}; send whole characters"
        )
    return message_problems


def find_surrogate(text: str) -> int | None:
    """Return the index of a lone surrogate, which JSON can express and UTF-8 cannot; None without one."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def _name_type(value: Any) -> str:
    for kind, name in ((bool, "a boolean"), (str, "a string"), (dict, "an object"), (list, "an array")):
        if isinstance(value, kind):
            return name
    return "null" if value is None else "a number"
