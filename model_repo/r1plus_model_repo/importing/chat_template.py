"""Does a chat template parse? Asked when weights are imported: in a pod it would be every request's error.

The template is a program in Jinja that came with somebody's file. It is parsed, in jinja2's sandbox, and never run
here: a loop in it can take for ever. `openvino_ir.try_template` has the backend run it, under an alarm.
"""

from jinja2 import TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_BYTES = 256 * 1024
"""Published ones have up to 30 KiB."""


class _Generation(Extension):
    """`{% generation %}`: marks what the assistant said, for training. Templates on the hub have it."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own interface

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The body stands for itself."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def problem(template: str) -> str | None:
    """Why the template cannot be served, with line; None if it parses."""
    try:
        size = len(template.encode())
    except UnicodeEncodeError as error:  # JSON can say one.
        return f"holds half a character at {error.start}, which is no text; get the file from the model's publisher"
    if size > MOST_BYTES:
        return f"{size} bytes, at most {MOST_BYTES} are taken; shorten it"
    if not template.strip():
        return "is empty; take the instruction-tuned file of the model, which has one"
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols", _Generation])
    try:
        environment.parse(template)
    except TemplateSyntaxError as error:
        return f"line {error.lineno}: {error.message}; mend it, or get the file from the model's publisher"
    except RecursionError:
        return "is nested too deeply; get the file from the model's publisher"
    except ValueError as error:  # Of Python's own, as for a number of thousands of digits.
        return f"{error}; mend it, or get the file from the model's publisher"
    return None
