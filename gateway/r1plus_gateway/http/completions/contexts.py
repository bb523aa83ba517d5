"""What enters a prompt besides a request's own text, as a completion sees it. Add-ons make these."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.body.field_tables import ObjectField
from r1plus_gateway.http.body.fields import Fields


class ContextReport(Protocol):
    """What a context has added to one prompt, as the answer reports it."""

    def describe(self) -> Mapping[str, Any]:
        """Return its members of the answer's `r1plus`."""

    def compare(self, text: str) -> "ContextReport":
        """Return it with whether a whole answer agrees with it."""


class QuotedSources(Protocol):
    """Quotations of documents in one prompt."""

    @property
    def block(self) -> str:
        """The text that enters the prompt."""

    def shrink(self, estimated_tokens: int, prompt_tokens: int, most_tokens: int) -> tuple[int, int]:
        """Return the budget of quotations for another try, in estimated tokens, and how many real ones that saves."""

    def describe(self, text: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the annotations of an answer with this text, and what its `r1plus` says of the search."""


class FoundSources(Protocol):
    """What was found in documents for one request."""

    def quote(self, budget_tokens: int) -> QuotedSources:
        """Return the best of it whose quotations fit into so many estimated tokens."""


class SourceProvider(Protocol):
    """A search in documents before a chat is answered."""

    @property
    def field(self) -> ObjectField:
        """The field of a body that asks for it."""

    async def find(self, fields: Fields, caller: Caller, find_question: Callable[[], str]) -> FoundSources | None:
        """Return what a body's question finds; None: it asks for no search.

        Raises:
            RequestError: the search is refused.
        """
