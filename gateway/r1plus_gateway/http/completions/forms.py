"""What a form of generation is: how one endpoint reads a request, and how it writes the answer."""

from dataclasses import dataclass
from typing import Protocol

from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.body.field_tables import Table
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.completions.answers import AnswerEnd, AnswerHead, EventWriter
from r1plus_gateway.http.completions.requests import GenerateRequest, ModelName
from r1plus_gateway.http.errors import FieldNames
from r1plus_gateway.settings import ModelSettings


@dataclass(frozen=True, slots=True)
class FormDescription:
    """What the OpenAPI document and the errors say of a form."""

    path: str
    about: str
    body: Table
    answer: str
    """Name of the schema of a whole answer."""
    events: str
    """Name of the schema of a stream's events."""
    names: FieldNames
    """Without tools, which make a schema of the answer as well."""


class Form(Protocol):
    """One endpoint that generates."""

    @property
    def description(self) -> FormDescription:
        """What is said of it."""

    def has_search(self, fields: Fields) -> bool:
        """Return whether documents are searched while a body is read."""

    async def read_request(
        self, fields: Fields, name: ModelName, model: ModelSettings, caller: Caller
    ) -> GenerateRequest:
        """Read a body.

        Raises:
            RequestError: it is refused.
        """

    def build_answer(self, head: AnswerHead, text: str, end: AnswerEnd) -> bytes:
        """Return a whole answer."""

    def open_events(self, head: AnswerHead) -> EventWriter:
        """Return the writer of an answer's stream."""
