"""The assistant as an add-on of the gateway: its routes, contexts, rounds and storage, put together."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from r1plus_assistant.calculation.client import Calculator
from r1plus_assistant.calculation.desk import CalculatorDesk
from r1plus_assistant.code.code_listeners import RoundsRunner
from r1plus_assistant.conversations.content_handlers import ContentTurns
from r1plus_assistant.conversations.content_schemas import CONTENT_COMPONENTS
from r1plus_assistant.conversations.conversations import ConversationHandlers
from r1plus_assistant.conversations.memories import MemoryHandlers
from r1plus_assistant.conversations.statement_embedding import running_statement_embedder
from r1plus_assistant.embedding.client import Embedder
from r1plus_assistant.embeddings import EmbeddingHandlers, describe_engine, find_engine
from r1plus_assistant.files.file_batches import VectorStoreBatches
from r1plus_assistant.files.file_search import ChatKnowledge, refuse_search
from r1plus_assistant.files.files import FileHandlers
from r1plus_assistant.files.knowledge_schemas import KNOWLEDGE_COMPONENTS
from r1plus_assistant.files.knowledge_search import make_finder
from r1plus_assistant.files.vector_stores import VectorStoreHandlers
from r1plus_assistant.knowledge.documents import DocumentReader
from r1plus_assistant.knowledge.service import KnowledgeService, read_content_limits, run_knowledge
from r1plus_assistant.math.calculations import Calculations
from r1plus_assistant.math.math_mode import MathMode
from r1plus_assistant.responses.response_form import ResponseForm
from r1plus_assistant.responses.response_requests import refuse_continuation
from r1plus_assistant.responses.response_schemas import RESPONSE_COMPONENTS
from r1plus_assistant.responses.response_storage import ResponseStorage
from r1plus_assistant.responses.stored_responses import StoredResponses
from r1plus_assistant.store.tenant_content import TenantContent
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.add_ons import AddOn, GatewayHost
from r1plus_gateway.http.completions.steps import leave_unstored
from r1plus_gateway.http.operations import Operation
from r1plus_gateway.settings import GatewayLimits


@dataclass(frozen=True, slots=True)
class Assistant:
    """The assistant of one gateway, with the helpers that it has."""

    desk: CalculatorDesk
    documents: DocumentReader | None = None
    embedder: Embedder | None = None

    @asynccontextmanager
    async def run(self, host: GatewayHost) -> AsyncIterator[AddOn]:
        """Run it until the block ends; see `AddOnRunner`."""
        read_settings = host.parts.read_settings

        def find_embedder() -> Embedder | None:
            """Return the embedder while the settings name its engine: on one machine that comes later."""
            return self.embedder if read_settings().embedding is not None else None

        def read_limits() -> GatewayLimits:
            return read_settings().limits

        async with AsyncExitStack() as stack:
            knowledge = content = storage = None
            if host.store is not None:
                running = run_knowledge(host.store, read_limits, self.documents, find_embedder)
                knowledge = await stack.enter_async_context(running)
                content = TenantContent(host.store, lambda: read_content_limits(read_limits()))
            statements = await stack.enter_async_context(running_statement_embedder(find_embedder))
            turns = ContentTurns(host.searches)
            if content is not None:
                storage = ResponseStorage(content, turns, read_settings, statements)
            find = make_finder(knowledge, turns, read_limits) if knowledge is not None else refuse_search
            read_continuation = storage.read_continuation if storage is not None else refuse_continuation
            yield AddOn(
                operations=self._list_operations(host, turns, content, knowledge),
                forms=(ResponseForm(read_continuation, find, runs_code=self.desk.runs_code),),
                components={**RESPONSE_COMPONENTS, **CONTENT_COMPONENTS, **KNOWLEDGE_COMPONENTS},
                contexts=(MathMode(self.desk, host.parts.models),),
                sources=ChatKnowledge(find),
                open_rounds=RoundsRunner(self.desk, host.parts).open,
                store_answer=storage.store if storage is not None else leave_unstored,
                list_features=self._make_feature_list(content, knowledge),
                describe_models=self._make_model_list(host),
            )

    def _list_operations(
        self, host: GatewayHost, turns: ContentTurns, content: TenantContent | None, knowledge: KnowledgeService | None
    ) -> list[Operation]:
        operations = [
            *Calculations(host.parts, self.desk, host.bodies, host.holds).list_operations(),
            *EmbeddingHandlers(host.parts, self.embedder, host.bodies, host.holds).list_operations(),
        ]
        parts = (host.authenticate, turns, host.bodies, host.parts.read_settings)
        if content is not None:
            for stored in (ConversationHandlers, StoredResponses, MemoryHandlers):
                operations += stored(content, *parts).list_operations()
        if content is not None and knowledge is not None:
            for files in (FileHandlers, VectorStoreHandlers, VectorStoreBatches):
                operations += files(content, *parts, knowledge).list_operations()
        return operations

    def _make_feature_list(
        self, content: TenantContent | None, knowledge: KnowledgeService | None
    ) -> Callable[[], frozenset[str]]:
        def list_features() -> frozenset[str]:
            has = {
                "calculator": self.desk.is_configured,
                "code_interpreter": self.desk.runs_code,
                "conversations": content is not None and content.is_stored,
                "documents": knowledge is not None and knowledge.knowledge.is_enabled,
            }
            return frozenset(feature for feature, is_on in has.items() if is_on)

        return list_features

    def _make_model_list(self, host: GatewayHost) -> Callable[[Caller], Sequence[dict[str, Any]]]:
        def describe_models(caller: Caller) -> Sequence[dict[str, Any]]:
            engine = find_engine(host.parts.read_settings(), caller)
            return () if engine is None else (describe_engine(engine),)

        return describe_models


def build_assistant(
    calculator: Calculator | None = None, documents: DocumentReader | None = None, embedder: Embedder | None = None
) -> Assistant:
    """Return the assistant with these helpers."""
    return Assistant(CalculatorDesk(calculator), documents, embedder)
