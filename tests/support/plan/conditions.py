"""What a status says, compared with what a test expects of it."""

from collections.abc import Callable, Mapping


def assert_conditions(
    condition: Callable[[str], tuple[str, str, str]], expected: Mapping[str, str | tuple[str, ...]]
) -> None:
    """Assert that conditions are as expected: type -> outcome, or outcome and words of the message.

    An outcome is a status, a reason, or both with a space between them.
    """
    for kind, value in expected.items():
        outcome, *words = (value,) if isinstance(value, str) else value
        status, reason, message = condition(kind)
        assert outcome in (status, reason, f"{status} {reason}"), f"{kind} is {status} {reason}: {message}"
        lacking = [word for word in words if word not in message]
        assert not lacking, f"{kind} does not say {lacking}: {message}"
