"""A tenant's gateway as people use it: its Secret and its keys come from `r1plus`, and it is called with OpenAI's client.

Keys are in the memory of the run that made them, and in nothing that it writes.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import yaml

from devcluster.api import pod_ready
from e2e import story
from e2e.asking import Asker
from e2e.command_line import run_r1plus
from e2e.kube import Json, Kube
from e2e.story import Name, Tell, condition
from e2e.target import Target
from e2e.waiting import StoryError, wait_for
from r1plus_cli.errors import CliError
from r1plus_contract.gateway import GATEWAY, GATEWAY_KEY, GATEWAY_SERVICE, LABEL_GATEWAY, PORT_SERVICE
from r1plus_contract.names import KIND_TENANT, TENANT
from r1plus_operator.api.conditions import ConditionType

GATEWAY_READY = ConditionType.GATEWAY_READY.value
GATEWAY_PODS = f"{LABEL_GATEWAY}=true"
"""Selects the pods of a namespace's gateway."""
Messages = list[Any]
QUESTION: Messages = [{"role": "user", "content": "What is the capital of Sweden?"}]
SHORT = 8
"""Tokens of an answer where only its arrival matters."""


def apply_tenants(kube: Kube, tell: Tell) -> None:
    """Apply the example's tenants, with the Secrets that their gateways need, and wait until their quotas are counted."""
    kube.kubectl("apply", f"--filename={story.TENANTS}")
    for document in yaml.safe_load_all(story.TENANTS.read_text()):
        if document["kind"] == KIND_TENANT and document["spec"].get("gateway", {}).get("enabled"):
            init_tenant(kube, document["metadata"]["namespace"], tell)
    story.until_counted(kube)


def init_tenant(kube: Kube, namespace: str, tell: Tell) -> None:
    """Make the Secret with half of the tenant's key, unless it is there.

    The recovery export lies beside the kubeconfig: with the embedded cluster it goes when the cluster goes.
    """
    if kube.get("secrets", namespace, GATEWAY_KEY) is not None:
        return
    export = export_path(kube, namespace)
    option = "--from" if export.exists() else "--export"
    tell(run_r1plus(kube, "tenant", "init", "-n", namespace, option, str(export)).stdout.strip())


def export_path(kube: Kube, namespace: str) -> Path:
    """Return where the recovery export of a namespace, as it is now, lies."""
    found = kube.get("namespaces", None, namespace)
    assert found is not None, namespace
    return kube.kubeconfig.parent / f"{namespace}-{found['metadata']['uid'][:8]}-recovery.json"


def gateway_condition(kube: Kube, namespace: str) -> Json:
    """Return condition GatewayReady of the R1PlusTenant; empty while there is none."""
    return condition(kube.get("r1plustenants", namespace, TENANT) or {}, GATEWAY_READY)


def format_condition(found: Json) -> str:
    """Return a condition in one line."""
    return f"{GATEWAY_READY} {found['status']} {found['reason']}: {found['message']}" if found else "not reported yet"


def until_condition(kube: Kube, namespace: str, what: str, holds: Callable[[Json], bool], tell: Tell) -> Json:
    """Wait until condition GatewayReady is so, and tell each of its changes; return it."""
    last = ""

    def look() -> Json | None:
        nonlocal last
        found = gateway_condition(kube, namespace)
        if (line := format_condition(found)) != last:
            last = line
            tell(f"gateway of {namespace}: {line}")
        return found if found and holds(found) else None

    return wait_for(look, what, lambda: f"{last}\n{describe_pods(kube, namespace)}")


def until_ready(kube: Kube, namespace: str, tell: Tell) -> Json:
    """Wait until the gateway is ready; return the condition."""
    return until_condition(
        kube, namespace, f"the gateway of {namespace} is ready", lambda one: bool(one["status"] == "True"), tell
    )


def gateway_pods(kube: Kube, namespace: str) -> list[Json]:
    """Return the gateway's pods, terminating ones as well."""
    return kube.all("pods", namespace, GATEWAY_PODS)


def is_up(pod: Json) -> bool:
    """Return whether a pod is ready, and stays."""
    return pod_ready(pod) and "deletionTimestamp" not in pod["metadata"]


def is_running(pod: Json) -> bool:
    """Return whether a pod's containers run, and it stays, ready or not."""
    return pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]


def until_up(kube: Kube, namespace: str) -> None:
    """Wait until a pod of the gateway is ready."""

    def look() -> bool:
        return any(is_up(pod) for pod in gateway_pods(kube, namespace))

    wait_for(look, f"a pod of the gateway of {namespace} is ready", lambda: describe_pods(kube, namespace))


def evict(kube: Kube, namespace: str, pod: str) -> None:
    """Evict a pod, as a drain of its node does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    kube.create_at(f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", body)


def describe_pods(kube: Kube, namespace: str) -> str:
    """Return what a person would look at when a gateway is not ready."""
    words = ("describe", "pods", "--namespace", namespace, "--selector", GATEWAY_PODS)
    logs = ("logs", "--namespace", namespace, "--selector", GATEWAY_PODS, "--tail=20")
    lines = []
    for each in (words, logs):
        try:
            lines.append(kube.kubectl(*each))
        except RuntimeError as error:
            lines.append(str(error))
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as `r1plus key create` printed it, this once."""

    id: str
    secret: str = field(repr=False)
    note: str
    """What the command said beside it."""


def create_key(kube: Kube, namespace: str, name: str, *options: str) -> ApiKey:
    """Make an API key of the namespace's gateway."""
    done = run_r1plus(kube, "key", "create", name, *options, "-n", namespace)
    secret = done.stdout.strip()
    found = re.fullmatch(r"r1p_([0-9A-Za-z]+)_\S+", secret)
    if found is None:
        raise StoryError(f"r1plus key create printed no key; it said: {done.stderr}")
    return ApiKey(found[1], secret, done.stderr.strip())


def create_token(kube: Kube, namespace: str, account: str = "default", audience: str = GATEWAY) -> str:
    """Make a token of a ServiceAccount for ten minutes, as a projected volume gives one."""
    words = ("create", "token", account, "--namespace", namespace, "--audience", audience, "--duration=10m")
    return kube.kubectl(*words).strip()


@dataclass(frozen=True, order=True, slots=True)
class Evidence:
    """What an answer's headers say of where it comes from."""

    revision: str
    verdict: str

    def __str__(self) -> str:
        return f"{self.revision or 'no revision'} ({self.verdict})"


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    text: str
    evidence: Evidence
    fingerprint: str | None
    headers: Any
    tokens: int
    """Of prompt and answer."""


def open_client(url: str, key: str, *, retries: int = 0) -> openai.OpenAI:
    """Return OpenAI's client, which tries once unless told otherwise, and which asks no proxy about this machine."""
    http = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(base_url=url, api_key=key, max_retries=retries, timeout=120.0, http_client=http)


def read_evidence(headers: Any) -> Evidence:
    """Return the evidence of an answer."""
    return Evidence(headers.get("x-r1plus-revision", ""), headers.get("x-r1plus-verdict", ""))


def ask(client: openai.OpenAI, model: str, max_tokens: int = SHORT, messages: Messages = QUESTION) -> Reply:
    """Ask once, not streamed. Raises openai.OpenAIError."""
    raw = client.chat.completions.with_raw_response.create(model=model, messages=messages, max_tokens=max_tokens)
    answer = raw.parse()
    return Reply(
        text=answer.choices[0].message.content or "",
        evidence=read_evidence(raw.headers),
        fingerprint=answer.system_fingerprint,
        headers=raw.headers,
        tokens=answer.usage.total_tokens if answer.usage else 0,
    )


@contextmanager
def reach(target: Target, namespace: str) -> Iterator[str]:
    """Yield the base URL of the namespace's gateway."""
    with target.reach(namespace, GATEWAY_SERVICE, PORT_SERVICE) as address:
        yield f"http://{address}/v1"


def until_verified(client: openai.OpenAI, kube: Kube, name: Name) -> Reply:
    """Wait until the gateway knows the revision that takes traffic, and answers with it: its settings are a volume."""
    last = ""

    def look() -> Reply | None:
        nonlocal last
        try:
            reply = ask(client, name.name)
        except openai.OpenAIError as error:
            last = str(error)
            return None
        last = str(reply.evidence)
        return reply if reply.evidence.revision == story.serving_revision(kube, name) else None

    return wait_for(look, f"the gateway answers with evidence of {name}", lambda: f"the last answer: {last}")


@dataclass(slots=True)
class GatewayAsker(Asker):
    """Asks the gateway, with OpenAI's client and without a second try; `address` is its base URL."""

    key: str = field(default="", repr=False)
    model: str = ""
    retries: int = 0
    max_tokens: int = SHORT
    is_streamed: bool = False
    evidence: Counter[Evidence] = field(default_factory=Counter)
    """How many answers came from where."""
    newest: Evidence = Evidence("", "")
    """Of the last answer."""

    @property
    def revisions(self) -> set[str]:
        """Whatever revisions have answered; empty stands for one that the gateway could not verify."""
        return {evidence.revision for evidence in self.evidence}

    def ask(self) -> None:
        """See `Asker`."""
        try:
            with open_client(self.address, self.key, retries=self.retries) as client:
                newest = self._stream(client) if self.is_streamed else self._ask(client)
        except openai.OpenAIError as error:
            cause = f" ({error.__cause__})" if error.__cause__ else ""
            raise CliError(f"{type(error).__name__}: {error}{cause}") from error
        self.newest = newest
        self.evidence[newest] += 1

    def summary(self) -> str:
        """In one line, with what the answers' headers said."""
        told = ", ".join(f"{count} by {evidence}" for evidence, count in sorted(self.evidence.items()))
        return f"{Asker.summary(self)}; {told}"

    @property
    def _messages(self) -> Messages:
        return [{"role": "user", "content": self.prompt}]

    def _ask(self, client: openai.OpenAI) -> Evidence:
        return ask(client, self.model, self.max_tokens, self._messages).evidence

    def _stream(self, client: openai.OpenAI) -> Evidence:
        """Read a stream to its end. Raises CliError if it has none, and openai.OpenAIError."""
        raw = client.chat.completions.with_raw_response.create(
            model=self.model, messages=self._messages, max_tokens=self.max_tokens, stream=True
        )
        reasons = [chunk.choices[0].finish_reason for chunk in raw.parse() if chunk.choices]
        if not reasons or reasons[-1] is None:
            raise CliError(f"a stream of {len(reasons)} events ended without a reason")
        return read_evidence(raw.headers)


def read_usage(kube: Kube, namespace: str) -> dict[str, int]:
    """Return the tokens that each caller has used, as `r1plus usage` says."""
    answer = json.loads(run_r1plus(kube, "usage", "-n", namespace, "-o", "json").stdout)
    used: Counter[str] = Counter()
    for row in answer["data"]:
        used[row["caller_id"]] += row["prompt_tokens"] + row["completion_tokens"] + row["unsettled_tokens"]
    return dict(used)
