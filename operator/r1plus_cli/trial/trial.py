"""The steps of `r1plus try`: make, break and remove a deployment in a namespace of its own.

Each step looks at what is there first, so a command that was cut off goes on when it is run again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from r1plus_cli.errors import CliError, NotFoundError, UnavailableError
from r1plus_cli.gateway.admin_api import (
    KEY_VARIABLE,
    GatewayCluster,
    GatewayTarget,
    call_admin,
    find_models,
    open_caller_session,
)
from r1plus_cli.promotion.outcome import PromotionOutcome, PromotionResult
from r1plus_cli.promotion.wait import WaitClock, WatchedCluster, wait_for_promotion
from r1plus_cli.tenant.key_halves import SecretCluster, create_half, read_export
from r1plus_cli.trial.lost_items import Refusal, find_refusal
from r1plus_cli.trial.manifests import (
    DEPLOYMENT,
    OWNER,
    OWNER_LABEL,
    Json,
    build_deployment,
    build_namespace,
    build_tenant,
)
from r1plus_contract.gateway import GATEWAY_KEY
from r1plus_contract.names import GROUP, TENANT, VERSION
from r1plus_operator.api.conditions import ConditionType

QUESTION: Final = "What is the capital of Sweden?"
WORSE_PRECISION: Final = "Q4_1"
KEY_SECONDS: Final = 7 * 24 * 3600
EXAMPLES: Final = 3
POLL_SECONDS: Final = 2.0
_NAMESPACES: Final = "/api/v1/namespaces"
_QUOTA_NOT_COUNTED: Final = "status unknown for quota"
"""Kubernetes says so of a new kind, until its quota controller has seen it."""


class TrialApi(Protocol):
    """What a trial needs of `raw_api.RawApi`."""

    def request(self, method: str, path: str, body: Json | None = None, **query: str) -> Json:
        """Send a request and return the response. Raise NotFoundError, UnavailableError or CliError."""

    def list_items(self, path: str, **query: str) -> Iterator[Json]:
        """Yield the objects of a collection."""


class TrialCluster(SecretCluster, GatewayCluster, WatchedCluster, Protocol):
    """What a trial needs from a cluster."""

    def open_raw_api(self) -> TrialApi:
        """Return the API server as raw JSON at paths."""

    def is_operator_ready(self) -> bool | None:
        """Return whether a pod of the operator is Ready; None if the user may not list pods."""

    def patch_deployment(self, namespace: str, name: str, patch: Json) -> None:
        """Patch an R1PlusDeployment by a JSON merge patch."""


@dataclass(frozen=True, slots=True)
class Started:
    """A trial that serves."""

    outcome: PromotionOutcome
    key: str
    """API key of the gateway, which nothing shows again."""
    answer: str
    """The model's answer to `QUESTION`, through the gateway with that key."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial in one namespace."""

    cluster: TrialCluster
    namespace: str
    timeout_s: float
    """Longest wait of each step."""
    report: Callable[[str], None]
    """Takes a line of progress."""
    clock: WaitClock = field(default_factory=WaitClock)

    def start(self, export: Path) -> Started:
        """Make what is missing, wait for the gate, and ask once. Raise CliError with what stands in the way.

        export: new file for half of the tenant's key.
        """
        self._require_operator()
        self._make_namespace()
        self._make(f"{self._group}/r1plustenants", TENANT, build_tenant(self.namespace))
        if self.cluster.read_secret(self.namespace, GATEWAY_KEY) is None:
            create_half(self.cluster, self.namespace, export)
            self.report(f"half of the tenant's key is exported to {export}; of a real tenant, keep it offline")
        if not self._make(f"{self._group}/r1plusdeployments", DEPLOYMENT, build_deployment(self.namespace)):
            self.cluster.patch_deployment(self.namespace, DEPLOYMENT, {"spec": {"engine": None}})
        outcome = self._wait()
        if outcome.result is not PromotionResult.PROMOTED:
            raise CliError(
                f"{self.namespace}/{DEPLOYMENT}: {outcome.result}: {outcome.reason} {outcome.message}; see:"
                f" r1plus status {DEPLOYMENT} -n {self.namespace}, and run the command again"
            )
        self._wait_until("the gateway is ready", self._is_gateway_ready, self._explain_gateway)
        self._wait_until(f"the gateway has {DEPLOYMENT}", lambda: DEPLOYMENT in find_models(self._build_target({})))
        key = self._create_key()
        return Started(outcome, key, self._ask(key))

    def spoil(self) -> tuple[PromotionOutcome, Refusal | None]:
        """Ask for the same weights in a worse precision. Return the refusal, and what was lost.

        Raise CliError if it is not refused.
        """
        self._require_own_namespace()
        worse = build_deployment(self.namespace, WORSE_PRECISION)["spec"]["engine"]
        self.cluster.patch_deployment(self.namespace, DEPLOYMENT, {"spec": {"engine": worse}})
        outcome = self._wait()
        if outcome.result is not PromotionResult.REFUSED:
            raise CliError(
                f"{self.namespace}/{DEPLOYMENT}: {WORSE_PRECISION} was not refused, but {outcome.result}:"
                f" {outcome.reason} {outcome.message}; see: r1plus status {DEPLOYMENT} -n {self.namespace}"
            )
        # The status says it first; the revision keeps the verdict in the next write.
        self._wait_until("the verdict is stored", lambda: self._find_refusal() is not None)
        return outcome, self._find_refusal()

    def answer_again(self) -> str:
        """Return the model's answer with a key that is revoked by its end, a minute later."""
        return self._ask(self._create_key(60))

    def remove(self, export: Path) -> bool:
        """Delete the namespace with all that is in it, and wait until it is gone. Return whether it was there.

        export: file of `start`, which is deleted as well if it is of this namespace; its half opens nothing any more.
        """
        if self._read_namespace() is None:
            return False
        self._require_own_namespace()
        uid = self.cluster.get_namespace_uid(self.namespace)
        self._api.request("DELETE", f"{_NAMESPACES}/{self.namespace}")
        self._wait_until(f"namespace {self.namespace} is gone", lambda: self._read_namespace() is None)
        if export.exists() and read_export(export).tenant_uid == uid:
            export.unlink()
        return True

    @property
    def _api(self) -> TrialApi:
        return self.cluster.open_raw_api()

    @property
    def _group(self) -> str:
        return f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}"

    def _require_operator(self) -> None:
        if self.cluster.is_operator_ready() is False:
            raise CliError(
                "No pod of the operator is Ready, so nothing would be served; install the chart first:"
                " helm install r1plus oci://REGISTRY/charts/r1plus-operator -n r1plus-system --create-namespace --wait"
            )

    def _read_namespace(self) -> Json | None:
        try:
            return self._api.request("GET", f"{_NAMESPACES}/{self.namespace}")
        except NotFoundError:
            return None

    def _make_namespace(self) -> None:
        live = self._read_namespace()
        if live is not None and live["metadata"].get("deletionTimestamp"):
            self._wait_until(f"the old namespace {self.namespace} is gone", lambda: self._read_namespace() is None)
            live = None
        if live is None:
            self._api.request("POST", _NAMESPACES, build_namespace(self.namespace))
            self.report(f"namespace {self.namespace} is made")
        self._require_own_namespace()

    def _require_own_namespace(self) -> None:
        """Refuse a namespace that somebody else made: a trial changes and deletes what is in it."""
        live = self._read_namespace()
        if live is None:
            raise CliError(f"Namespace {self.namespace} does not exist; `r1plus try` makes it")
        if (live["metadata"].get("labels") or {}).get(OWNER_LABEL) != OWNER:
            raise CliError(
                f"Namespace {self.namespace} was not made by r1plus try (label {OWNER_LABEL} is not {OWNER});"
                " nothing was changed. Give another one with -n"
            )

    def _make(self, collection: str, name: str, body: Json) -> bool:
        """Create an object, and return whether it was missing."""
        try:
            self._api.request("GET", f"{collection}/{name}")
        except NotFoundError:
            self._wait_until(f"{body['kind']} {name} is made", lambda: self._create(collection, body))
            return True
        return False

    def _create(self, collection: str, body: Json) -> bool:
        """Create an object; False while the quota of its kind is not counted yet."""
        try:
            self._api.request("POST", collection, body)
        except CliError as error:
            if _QUOTA_NOT_COUNTED not in str(error):
                raise
            return False
        return True

    def _wait(self) -> PromotionOutcome:
        return wait_for_promotion(self.cluster, self.namespace, DEPLOYMENT, self.timeout_s, self.report, self.clock)

    def _wait_until(self, what: str, is_true: Callable[[], bool], explain: Callable[[], str] = lambda: "") -> None:
        """Look again and again. Raise CliError after `timeout_s`, with what `explain` says."""
        end = self.clock.read() + self.timeout_s
        last_text = ""
        while True:
            text = f"waiting until {what}"
            try:
                if is_true():
                    return
            except UnavailableError as error:
                text = f"{error}; trying again"
            if self.clock.read() >= end:
                raise CliError(f"Not within {self.timeout_s:.0f} s: {what}{explain()}; run the command again to go on")
            if text != last_text:
                self.report(text)
                last_text = text
            self.clock.sleep(POLL_SECONDS)

    def _is_gateway_ready(self) -> bool:
        tenant = self._api.request("GET", f"{self._group}/r1plustenants/{TENANT}")
        conditions = tenant.get("status", {}).get("conditions", ())
        return any((one["type"], one["status"]) == (ConditionType.GATEWAY_READY, "True") for one in conditions)

    def _find_refusal(self) -> Refusal | None:
        path = f"/apis/apps/v1/namespaces/{self.namespace}/controllerrevisions"
        return find_refusal((one for one in self._api.list_items(path) if _is_owned(one)), EXAMPLES)

    def _explain_gateway(self) -> str:
        problem = self.cluster.explain_gateway(self.namespace)
        return f" ({problem})" if problem else ""

    def _create_key(self, seconds: int = KEY_SECONDS) -> str:
        body = {"name": OWNER, "limits": {}, "models": [DEPLOYMENT], "expires_in_seconds": seconds}
        return str(call_admin(self._build_target({}), "POST", "/keys", body=body)["key"])

    def _ask(self, key: str) -> str:
        question = {"model": DEPLOYMENT, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 64}
        with open_caller_session(self._build_target({KEY_VARIABLE: key})) as session:
            answer = session.call("POST", "/chat/completions", json=question, seconds=120.0)
        return str(answer["choices"][0]["message"]["content"]).strip()

    def _build_target(self, env: dict[str, str]) -> GatewayTarget:
        return GatewayTarget(lambda: self.cluster, self.namespace, env=env)


def _is_owned(revision: Json) -> bool:
    """Return whether a ControllerRevision is the deployment's."""
    owners = revision["metadata"].get("ownerReferences") or ()
    return any(owner.get("name") == DEPLOYMENT for owner in owners)
