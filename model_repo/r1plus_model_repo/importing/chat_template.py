"""A check that a chat template parses, made at import: in a pod a broken template would fail every request.

The template is a Jinja program from the model's publisher. It is parsed in jinja2's sandbox and never run here: a loop
in it may never end. `openvino.ir.try_template` lets the backend run it, with a timeout.
"""

from jinja2 import TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_BYTES = 256 * 1024
"""Published templates have up to 30 KiB."""


class _Generation(Extension):
    """`{% generation %}`: marks the assistant's text for training. Templates on the hub use it."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own interface

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the body as it is."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def find_problem(template: str) -> str | None:
    """Return why the template cannot be served, with the line; None if it parses."""
    try:
        size = len(template.encode())
    except UnicodeEncodeError as error:  # JSON can express one.
        return f"has half a character (a lone surrogate) at {error.start}; get the file from the model's publisher"
    if size > MOST_BYTES:
        return f"{size} bytes, at most {MOST_BYTES} are allowed; shorten it"
    if not template.strip():
        return "is empty; use the instruction-tuned file of the model"
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols", _Generation])
    try:
        environment.parse(template)
    except TemplateSyntaxError as error:
        return f"line {error.lineno}: {error.message}; fix it, or get the file from the model's publisher"
    except RecursionError:
        return "is nested too deeply; get the file from the model's publisher"
    except ValueError as error:  # Python's own, e.g. for a number of thousands of digits.
        return f"{error}; fix it, or get the file from the model's publisher"
    return None
