"""Memory in a response: what of an earlier conversation enters its prompt, where the request asks for memory.

Off, a prompt has all that was said before. On, it has the newest turns, and quotations of those before them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from r1plus_assistant.conversations.indexed_history import Recollection
from r1plus_assistant.knowledge.search import SearchMethod
from r1plus_assistant.memory.long_term import plan_keeping
from r1plus_assistant.memory.packing import PromptMemory, pack_views
from r1plus_assistant.responses.response_items import Item, build_messages, read_item_text
from r1plus_contract.inference import Role
from r1plus_gateway.http.body.field_tables import FlagField, IntegerField, ObjectField, StringField, Table
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.completions.estimated_tokens import EstimatedTokens
from r1plus_gateway.http.completions.messages import PromptMessage
from r1plus_gateway.settings import ModelSettings
from r1plus_gateway.store.content.content import MemoryChanges, StoredMemory

DEFAULT_SHARE: Final = 0.5
"""Of the model's context, for memory."""
LEAST_BUDGET: Final = 64
MOST_QUESTION_CHARACTERS: Final = 4_000
"""Of the end of what is asked now, by which earlier turns are searched."""
SAFETY: Final = 0.9
"""Of a budget that was counted and exceeded, for the next try."""
ENABLED: Final = FlagField("enabled", is_required=True)
BUDGET: Final = IntegerField("budget_tokens", LEAST_BUDGET, None)
RECALL, KEEP = "recall", "keep"
LONG_TERM: Final = StringField("long_term", values=(RECALL, KEEP))
MEMORY: Final = ObjectField("memory", Table((ENABLED, BUDGET, LONG_TERM)))


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What memory put into a prompt."""

    memory: PromptMemory
    search: SearchMethod
    turns: int
    """That were read, the newest of the conversation."""
    estimated_tokens: int
    """Of the whole prompt."""

    def build_figures(self) -> dict[str, int | str]:
        """Return what the answer says of it."""
        return {
            "budget_tokens": self.memory.budget,
            "estimated_tokens": self.memory.tokens,
            "turns": self.turns,
            "verbatim_turns": len(self.memory.verbatim),
            "cards": self.memory.cards,
            "retrieved": self.memory.retrieved,
            "remembered": self.memory.remembered,
            "search": self.search.value,
        }

    def find_smaller_budget(self, prompt_tokens: int, most_tokens: int) -> int | None:
        """Return the budget for another try, in estimated tokens; None if this one holds.

        `prompt_tokens`: of the whole prompt, as the engine counts them; `most_tokens`: that it may have.
        """
        ratio = max(1.0, prompt_tokens / max(1, self.estimated_tokens))
        excess = max(0, prompt_tokens - most_tokens)
        is_held = self.memory.tokens * ratio <= self.memory.budget and excess == 0
        if is_held or self.memory.tokens == 0:
            return None
        return max(0, int(SAFETY * min(self.memory.budget / ratio, self.memory.tokens - excess / ratio)))


@dataclass(frozen=True, slots=True)
class MemoryOptions:
    """What a request asks of memory."""

    budget: int
    """Tokens."""
    recalls: bool = False
    """What was said in other conversations."""
    keeps: bool = False
    """What this request says, for other conversations."""


def read_memory_options(fields: Fields, model: ModelSettings) -> MemoryOptions | None:
    """Return what is asked of memory; None without memory.

    Raises:
        InvalidFieldError: `memory` has another form, or a budget beyond the context.
    """
    options = MEMORY.read(fields)
    if options is None:
        return None
    if not options.has(ENABLED.name):
        raise options.build_missing_error(ENABLED.name)
    is_enabled = ENABLED.read(options)
    budget = BUDGET.read(options, max(LEAST_BUDGET, model.context_tokens))
    long_term = LONG_TERM.read(options)
    MEMORY.table.refuse_rest(options)
    if not is_enabled:
        return None
    tokens = int(DEFAULT_SHARE * model.context_tokens) if budget is None else budget
    return MemoryOptions(tokens, bool(long_term), long_term == KEEP)


def recall_messages(earlier: Recollection, items: Sequence[Item], budget: int) -> tuple[list[PromptMessage], MemoryUse]:
    """Return the messages of a prompt with memory. What developers said before is kept; it is no memory."""
    counter = EstimatedTokens()
    rankings = () if earlier.ranking is None else (earlier.ranking,)
    memory = pack_views(earlier.said, earlier.known, find_question(items), budget, counter, rankings)
    kept = sum(len(turn.utterances) for turn in memory.verbatim)
    messages = build_messages([*earlier.instructions, *earlier.newest[len(earlier.newest) - kept :], *items])
    messages = _insert_block(_insert_best(messages, memory.best), memory.block)
    tokens = sum(counter.count(message.content) for message in messages)
    search = SearchMethod.HYBRID if rankings else SearchMethod.WORDS
    return messages, MemoryUse(memory, search, earlier.said.turn_count, tokens)


def plan_memories(remembered: Sequence[StoredMemory], items: Sequence[Item]) -> MemoryChanges:
    """Return what a request adds to what is remembered, and what it takes away."""
    said = [read_item_text(item) for item in items if item.get("role") == "user"]
    keeping = plan_keeping([memory.text for memory in remembered], said)
    return MemoryChanges(keeping.said, [remembered[index].id for index in keeping.superseded])


def _insert_block(messages: list[PromptMessage], block: str) -> list[PromptMessage]:
    """Put quotations before the first message that is none of a developer.

    They join what a user says there: some chat templates take no two messages of a user after one another.
    """
    if not block:
        return messages
    place = next((index for index, one in enumerate(messages) if one.role != Role.SYSTEM), len(messages))
    if place < len(messages) and messages[place].role == Role.USER:
        joined = PromptMessage(Role.USER, f"{block}\n\n{messages[place].content}")
        return [*messages[:place], joined, *messages[place + 1 :]]
    return [*messages[:place], PromptMessage(Role.USER, block), *messages[place:]]


def _insert_best(messages: list[PromptMessage], best: str) -> list[PromptMessage]:
    """Put the best quotation before what the user says last: a small model answers by what is beside the question."""
    place = max((index for index, one in enumerate(messages) if one.role == Role.USER), default=None)
    if not best or place is None:
        return messages
    joined = PromptMessage(Role.USER, f"{best}\n\n{messages[place].content}")
    return [*messages[:place], joined, *messages[place + 1 :]]


def find_question(items: Sequence[Item]) -> str:
    """Return what the user asks now."""
    texts = [read_item_text(item) for item in items if item.get("role") == "user"]
    return "\n".join(texts)[-MOST_QUESTION_CHARACTERS:]
