"""Beside the story: a tenant's gateway as applications use it, and that nothing else calls that tenant's models.

It runs after `test_story`, by its name, on the gateway that the example's tenant asks for. Kills, promotions and removal
are in `make e2e STORY=gateway`.
"""

import re
from collections.abc import Callable, Iterator

import httpx
import openai
import pytest

from e2e import gateways, story
from e2e.gateways import QUESTION
from e2e.inside import Caller
from e2e.parts import Parts
from e2e.regression import Regression
from e2e.story import Name
from e2e.target import Target
from r1plus_contract.gateway import PORT_API
from r1plus_contract.names import PORT_GRPC

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]

STRANGER = "team-support"
"""A namespace that the tenant does not let in."""
BUDGET = 60
"""Tokens: enough for one short answer, and not for two."""


@pytest.fixture(scope="session")
def served(regression: Regression, target: Target) -> Name:
    """A deployment behind a gateway that is ready."""
    regression.first_day.result()
    gateways.until_ready(target.kube, regression.full.namespace, print)
    return regression.full


@pytest.fixture(scope="session")
def url(served: Name, target: Target) -> Iterator[str]:
    """The gateway's base URL."""
    with gateways.reach(target, served.namespace) as found:
        yield found


@pytest.fixture(scope="session")
def client(served: Name, url: str, target: Target) -> Iterator[openai.OpenAI]:
    """OpenAI's client with a key, of a gateway that knows which revision serves."""
    key = gateways.create_key(target.kube, served.namespace, "story")
    with gateways.open_client(url, key.secret) as made:
        gateways.until_verified(made, target.kube, served)
        yield made


def test_openais_client_gets_an_answer_with_its_evidence(client: openai.OpenAI, served: Name, target: Target) -> None:
    reply = gateways.until_verified(client, target.kube, served)

    revision = story.serving_revision(target.kube, served)
    assert reply.text
    assert reply.tokens > gateways.SHORT
    assert reply.evidence.revision == revision
    assert reply.evidence.verdict in {"Pass", "Fail"}
    assert (reply.fingerprint or "").startswith(f"{revision}@sha256:")


def test_openais_client_gets_a_stream_of_pieces(client: openai.OpenAI, served: Name) -> None:
    stream = client.chat.completions.create(
        model=served.name, messages=QUESTION, max_tokens=16, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)

    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) > 1
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens <= 16


def test_a_browser_gets_the_page_and_all_that_it_loads_without_a_key(url: str) -> None:
    root = url.removesuffix("v1")
    with httpx.Client(base_url=root, trust_env=False) as browser:
        page = browser.get("/")
        assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        files = re.findall(r'(?:src|href)="(page/[^"]+)"', page.text)
        assert files
        assert {browser.get(f"/{file}").status_code for file in files} == {200}


def test_a_program_of_the_tenant_calls_with_the_token_of_its_serviceaccount(
    served: Name, url: str, target: Target
) -> None:
    token = gateways.create_token(target.kube, served.namespace)
    with gateways.open_client(url, token) as client:
        assert gateways.ask(client, served.name).text
        assert next(model.id for model in client.models.list()) == served.name


Denial = tuple[Callable[[Target, Name], str], type[openai.APIStatusError], str]
DENIALS: dict[str, Denial] = {
    "a key that nobody made": (
        lambda target, name: "r1p_000000000000_0000000000000000000000000000000000000000000_000000",
        openai.AuthenticationError,
        "invalid_api_key",
    ),
    "a token for somebody else": (
        lambda target, name: gateways.create_token(target.kube, name.namespace, audience="r1plus-registry"),
        openai.AuthenticationError,
        "invalid_api_key",
    ),
    "a token of a namespace that is not let in": (
        lambda target, name: gateways.create_token(target.kube, STRANGER),
        openai.PermissionDeniedError,
        "",
    ),
}


@pytest.mark.parametrize(("make", "error", "code"), DENIALS.values(), ids=DENIALS)
def test_is_refused(
    served: Name,
    url: str,
    target: Target,
    make: Callable[[Target, Name], str],
    error: type[openai.APIStatusError],
    code: str,
) -> None:
    with gateways.open_client(url, make(target, served)) as client, pytest.raises(error) as raised:
        gateways.ask(client, served.name)
    assert not code or raised.value.code == code


def test_a_key_answers_until_its_budget_is_used_up(served: Name, url: str, target: Target) -> None:
    key = gateways.create_key(target.kube, served.namespace, "small", "--budget", str(BUDGET))
    spent = 0
    with gateways.open_client(url, key.secret) as client, pytest.raises(openai.RateLimitError) as raised:
        while spent <= BUDGET:
            spent += gateways.ask(client, served.name).tokens
    assert raised.value.code == "insufficient_quota"
    assert 0 < spent <= BUDGET


CALLERS = {
    "a program of the tenant reaches the gateway": (True, "connected"),
    "a program of the tenant does not reach the model itself": (False, "shut out"),
}


@pytest.fixture(scope="session")
def callers(served: Name, target: Target, built: Parts) -> dict[str, tuple[Caller, str]]:
    """Pods of the tenant that try from one moment, by what they try."""
    kube, started = target.kube, {}
    model = kube.get("pods", served.namespace, story.until_pod(kube, served))
    (gateway,) = filter(gateways.is_up, gateways.gateway_pods(kube, served.namespace))
    assert model is not None
    for what, (is_gateway, expected) in CALLERS.items():
        pod, port = (gateway, PORT_API) if is_gateway else (model, PORT_GRPC)
        caller = Caller(kube, served.namespace, built.refs["monitor"])
        control = (gateway["status"]["podIP"], PORT_API) if expected == "shut out" else None
        started[what] = caller, caller.start(pod["status"]["podIP"], port, control=control)
    return started


@pytest.mark.parametrize("what", CALLERS)
def test_without_direct_access(callers: dict[str, tuple[Caller, str]], what: str) -> None:
    caller, pod = callers[what]
    assert caller.outcome(pod) == CALLERS[what][-1]


def test_usage_shows_what_the_callers_used(client: openai.OpenAI, served: Name, target: Target) -> None:
    before = gateways.read_usage(target.kube, served.namespace)
    reply = gateways.ask(client, served.name)
    after = gateways.read_usage(target.kube, served.namespace)

    assert sum(after.values()) >= sum(before.values()) + reply.tokens
