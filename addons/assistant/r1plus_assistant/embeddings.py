"""`POST /v1/embeddings`: texts to vectors, by the embedder beside the gateway, in OpenAI's form."""

import asyncio
import base64
import contextlib
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web

from r1plus_assistant.embedding.client import (
    Embedder,
    EmbedderUnavailableError,
    Embeddings,
    TextRefusedError,
    join,
)
from r1plus_contract.embedder import MOST_TEXT_BYTES
from r1plus_gateway.access.caller import AccessError, AnswerEvidence, Caller, CallerKind, TokenUsage
from r1plus_gateway.access.turns import Places
from r1plus_gateway.http.accounting.admission import Holds
from r1plus_gateway.http.accounting.bill import reservation
from r1plus_gateway.http.accounting.refusals import convert_refusals
from r1plus_gateway.http.body.bodies import BodyBudget
from r1plus_gateway.http.body.field_tables import FlagField, OtherField, StringField, Table
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.body.json_body import Json
from r1plus_gateway.http.completions.presets import build_unknown_model_error
from r1plus_gateway.http.errors import InvalidFieldError, NotConfiguredError, RequestError
from r1plus_gateway.http.operations import Operation
from r1plus_gateway.http.parts import GatewayParts, authenticate
from r1plus_gateway.http.request_keys import MODEL_NAME
from r1plus_gateway.serving.errors import QueueFullError
from r1plus_gateway.settings import EmbeddingSettings, GatewaySettings

HEADER_ENGINE: Final = "x-r1plus-engine"
MOST_INPUTS: Final = 2048
MOST_AT_ONCE: Final = 4
"""Requests of one caller: there is one embedder, and all of the tenant's callers share it."""
FLOAT, BASE64 = "float", "base64"
_TEXT: Final[dict[str, Json]] = {"type": "string", "minLength": 1, "maxLength": MOST_TEXT_BYTES}
INPUT: Final = OtherField(
    "input",
    {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MOST_INPUTS}]},
    is_required=True,
)
MODEL: Final = StringField("model", is_required=True)
ENCODING: Final = StringField("encoding_format", values=(FLOAT, BASE64))
DIMENSIONS: Final = OtherField("dimensions", {"type": "integer"})
"""Taken if it is the engine's own, which differs from tenant to tenant."""
TRUNCATE: Final = FlagField("truncate")
EMBED: Final = Table((MODEL, INPUT, ENCODING, DIMENSIONS, TRUNCATE), ignored=frozenset({"user"}))
NOT_CONFIGURED: Final = (
    "this gateway has no embedder, so there are no vectors. Ask the platform team to name an engine of kind embedding"
    " in spec.gateway.embedding of the R1PlusTenant"
)
ADMINISTERS_ONLY: Final = (
    "ServiceAccount r1plus-gateway-admin administers and embeds no texts. Call with an API key, which"
    " `r1plus key create` makes, or with a token of another ServiceAccount."
)
TOKENS_REFUSED: Final = (
    "token ids are not taken, since they are those of another model's tokenizer; send the texts themselves. In"
    " LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False"
)


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """One request, checked."""

    texts: tuple[str, ...]
    is_list: bool
    """Whether `input` was a list, for the names of its items in errors."""
    encoding: str
    truncate: bool

    def locate(self, position: int | None) -> str:
        """Return the field with a text."""
        return f"input[{position}]" if self.is_list and position is not None else "input"


class EmbeddingHandlers:
    """Answers the requests for embeddings. A text's tokens are counted by the engine, and billed as a prompt's.

    So are those that were computed before a later text was refused, the embedder failed, or the client left.
    """

    def __init__(self, parts: GatewayParts, embedder: Embedder | None, bodies: BodyBudget, holds: Holds) -> None:
        self._parts = parts
        self._embedder = embedder
        self._bodies = bodies
        self._holds = holds
        self._places = Places()

    def list_operations(self) -> list[Operation]:
        """Return the endpoint."""
        return [
            Operation(
                "POST",
                "/v1/embeddings",
                "Turn texts into vectors of length 1, by the tenant's embedding engine.",
                self.answer,
                "Embeddings",
                body=EMBED,
                errors=(404,),
            )
        ]

    async def answer(self, http: web.Request) -> web.Response:
        """Answer one request.

        Raises:
            RequestError: it is refused, or there are no vectors.
        """
        with convert_refusals(self._parts, self._holds, http, "input"):
            return await self._answer(http)

    async def _answer(self, http: web.Request) -> web.Response:
        caller = await authenticate(self._parts, http)
        if caller.kind is CallerKind.ADMIN:
            raise AccessError(403, "admin_not_allowed", ADMINISTERS_ONLY)
        self._holds.check(caller)
        settings = self._parts.read_settings()
        async with self._bodies.read(http, caller, settings.limits) as body:
            name = MODEL.read(body.fields)
            if self._embedder is None or settings.embedding is None:
                raise NotConfiguredError("embedder_not_configured", NOT_CONFIGURED)
            engine = find_engine(settings, caller)
            if engine is None or name != engine.name:
                raise build_unknown_model_error(name)
            http[MODEL_NAME] = engine.name
            request = read_request(body.fields, engine)
            with self._places.take(caller.group_id, MOST_AT_ONCE, _refuse_place):
                return await self._embed(http, caller, self._embedder, engine, request)

    async def _embed(
        self,
        http: web.Request,
        caller: Caller,
        embedder: Embedder,
        engine: EmbeddingSettings,
        request: EmbeddingsRequest,
    ) -> web.Response:
        most = sum(estimate_tokens(text, engine) for text in request.texts)
        async with reservation(self._parts, http, caller, engine.name, most) as bill:
            computed, refusal = list[Embeddings](), None
            try:
                async with contextlib.aclosing(embedder.embed_parts(request.texts, truncate=request.truncate)) as parts:
                    async for part in parts:
                        _check_engine(part, engine)
                        computed.append(part)
                embeddings = join(computed)
                body = await asyncio.to_thread(build_body, embeddings, engine.name, request.encoding)
            except TextRefusedError as error:
                refusal = error
            except EmbedderUnavailableError as error:
                retry = {"Retry-After": str(self._parts.read_settings().limits.retry_after_seconds)}
                raise RequestError(503, "embedder_unavailable", str(error), headers=retry) from error
            finally:
                usage = TokenUsage(sum(sum(part.tokens) for part in computed), 0)
                bill.record(usage, AnswerEvidence("", engine.sha256, "") if computed else None)
        if refusal is not None:  # answered, with the reason why there are no vectors
            raise InvalidFieldError(request.locate(refusal.position), str(refusal), code="text_refused") from refusal
        headers = {HEADER_ENGINE: embeddings.engine}
        return web.Response(body=body, content_type="application/json", headers=headers)


def find_engine(settings: GatewaySettings, caller: Caller) -> EmbeddingSettings | None:
    """Return the embedding engine if this caller may call it.

    A key with a list of models has to list it. Accounts of other namespaces call models that name them, and an engine
    names nobody.
    """
    engine = settings.embedding
    if engine is None or (caller.models is not None and engine.name not in caller.models):
        return None
    return engine if caller.namespace in ("", settings.namespace) else None


def describe_engine(engine: EmbeddingSettings) -> dict[str, Any]:
    """Return the entry of an embedding engine in `GET /v1/models`."""
    about = {
        "context_tokens": engine.most_tokens,
        "dimensions": engine.dimensions,
        "engine": engine.identity,
        "capabilities": ["embeddings"],
    }
    return {
        "id": engine.name,
        "object": "model",
        "created": engine.created_at,
        "owned_by": "r1plus",
        "r1plus": about,
    }


def read_request(fields: Fields, engine: EmbeddingSettings) -> EmbeddingsRequest:
    """Return the request.

    Raises:
        InvalidFieldError: a field is wrong.
    """
    value = fields.get("input")
    if value is None or value == [] or value == "":
        raise fields.build_missing_error("input")
    texts = value if isinstance(value, list) else [value]
    if len(texts) > MOST_INPUTS:
        raise InvalidFieldError("input", f"{len(texts)} items exceed {MOST_INPUTS}; send several requests")
    request = EmbeddingsRequest(tuple(texts), isinstance(value, list), ENCODING.read(fields), TRUNCATE.read(fields))
    for position, text in enumerate(texts):
        _check_text(request.locate(position), text)
    dimensions = fields.read_integer("dimensions", -(2**63), 2**63)
    if dimensions is not None and dimensions != engine.dimensions:
        message = f"{dimensions} is not {engine.dimensions}, which {engine.name} has; leave it out"
        raise InvalidFieldError("dimensions", message)
    EMBED.refuse_rest(fields)
    return request


def _check_text(where: str, text: Json) -> None:
    if isinstance(text, int | list):
        raise InvalidFieldError(where, TOKENS_REFUSED, code="invalid_type")
    if not isinstance(text, str):
        raise InvalidFieldError(where, "expected a string", code="invalid_type")
    if not text:
        raise InvalidFieldError(where, "is empty; leave it out", code="missing_required_parameter")
    if (size := len(text.encode())) > MOST_TEXT_BYTES:
        raise InvalidFieldError(where, f"{size} bytes exceed {MOST_TEXT_BYTES}; split the text")


def estimate_tokens(text: str, engine: EmbeddingSettings) -> int:
    """Return at least as many tokens as a text has: each byte could be one, and there are two marks around it."""
    return min(engine.most_tokens, len(text.encode()) + 2)


def _check_engine(embeddings: Embeddings, engine: EmbeddingSettings) -> None:
    """Refuse vectors of another engine than this gateway lists, as while one is replaced.

    Raises:
        EmbedderUnavailableError: it is another one.
    """
    if embeddings.engine != engine.identity:
        raise EmbedderUnavailableError(
            f"the embedder has {embeddings.engine}, and this gateway expects {engine.identity}, as while an engine is"
            " replaced; try again later"
        )


def build_body(embeddings: Embeddings, model: str, encoding: str) -> bytes:
    """Return the answer as JSON."""
    rows = embeddings.vectors
    data = [
        {
            "object": "embedding",
            "index": position,
            "embedding": base64.b64encode(row.astype("<f4", copy=False).tobytes()).decode()
            if encoding == BASE64
            else row,
        }
        for position, row in enumerate(rows)
    ]
    tokens = sum(embeddings.tokens)
    body = {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "r1plus": {"engine": embeddings.engine, "truncated": list(embeddings.truncated)},
    }
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def _refuse_place() -> QueueFullError:
    message = f"{MOST_AT_ONCE} of your requests for embeddings run already; send this one when they have ended"
    return QueueFullError(message)
