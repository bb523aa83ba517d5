"""What the steps of a completion hand on: parse → admit → prepare → reserve → run → settle. Each value is frozen."""

from dataclasses import dataclass

from aiohttp import web

from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.accounting.bill import Bill
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.completions.forms import Form
from r1plus_gateway.http.completions.operating_points import OperatingPoint
from r1plus_gateway.http.completions.requests import GenerateRequest, ModelName
from r1plus_gateway.http.errors import FieldNames
from r1plus_gateway.http.request_keys import REQUEST_ID
from r1plus_gateway.serving.pods import PodPool
from r1plus_gateway.serving.running_requests import RunningRequest


@dataclass(frozen=True, slots=True)
class Call:
    """A request to generate, of a caller who may."""

    http: web.Request
    form: Form
    caller: Caller
    running: RunningRequest

    @property
    def id(self) -> str:
        """The request's id."""
        return self.http[REQUEST_ID]


@dataclass(frozen=True, slots=True)
class ModelCall:
    """What parsing gives: a call, the fields of its body, and the model that they name."""

    call: Call
    fields: Fields
    name: ModelName
    pool: PodPool


@dataclass(frozen=True, slots=True)
class Draft:
    """What preparation gives: a checked request with all that enters its prompt before tokens are set aside."""

    call: Call
    pool: PodPool
    request: GenerateRequest
    names: FieldNames
    """Fields of the body, for the errors of the engine."""
    point: OperatingPoint


@dataclass(frozen=True, slots=True)
class Job:
    """What a reservation gives: a request with its limit of new tokens, and its bill."""

    draft: Draft
    request: GenerateRequest
    bill: Bill
    prompt_tokens: int
    """The prompt's tokens as the engine has counted them; 0: not counted."""
