"""Runs preflight's proof that NetworkPolicies are enforced: in a namespace of its own, which it removes in any case."""

import re
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Final, TypeVar

from r1plus_cli.errors import AccessDeniedError, CliError, NotFoundError, UnavailableError
from r1plus_cli.preflight.cluster_checks import check_users
from r1plus_cli.preflight.cluster_view import ClusterView, Json
from r1plus_cli.preflight.network_probe import (
    MARK,
    NAMESPACE,
    SERVER,
    UNDER_POLICIES,
    ProbePod,
    build_client,
    build_namespace,
    build_policies,
    build_server,
    judge_before,
    judge_findings,
    read_finding,
)
from r1plus_cli.preflight.node_checks import check_platform
from r1plus_cli.preflight.observer import ClusterReader
from r1plus_cli.preflight.outcome import ChartValue, CheckLevel, CheckOutcome, fail, warn
from r1plus_cli.promotion.wait import WaitClock
from r1plus_contract.monitor.isolation import AttemptFinding
from r1plus_operator.plan.settings import PodUser

READY_SECONDS: Final = 180.0
"""Time for a pod to start, with its image to be pulled, and for one to end."""
GONE_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.5
_NAMESPACES = "/api/v1/namespaces"
_PATH = f"{_NAMESPACES}/{NAMESPACE}"
_POLICIES = f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies"
_PULL_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})


_PREFIXED = re.compile(r"(.+)/r1plus-monitor[:@]")
T = TypeVar("T")


class _UnprovenError(Exception):
    """The proof ended early, with this outcome."""

    def __init__(self, outcome: CheckOutcome) -> None:
        super().__init__(outcome.seen)
        self.outcome = outcome


class NetworkProof:
    """One run. Ctrl-C ends it at any time, and the namespace is removed then as well."""

    def __init__(
        self,
        api: ClusterReader,
        image: str,
        user: PodUser,
        report: Callable[[str], None],
        clock: WaitClock | None = None,
    ) -> None:
        self._api = api
        self._image = image
        self._user = user
        self._report = report
        self._clock = clock or WaitClock()

    def run(self) -> CheckOutcome:
        """Return what the pods found, or why they found nothing. Raise UnavailableError if the cluster goes away."""
        uid = ""
        try:
            self._remove_leftover()
            uid = self._create(_NAMESPACES, build_namespace())["metadata"]["uid"]
            return self._try_connections()
        except _UnprovenError as error:
            return error.outcome
        except AccessDeniedError as error:
            return warn(f"not proven: {error}", "run preflight as a user that may create namespaces, pods and policies")
        except UnavailableError:
            raise
        except CliError as error:
            return fail(f"not proven: {error}", "correct that, or give --skip-network")
        finally:
            if uid:
                self._remove(uid)

    def _try_connections(self) -> CheckOutcome:
        self._await(self._find_account, "the namespace has its service account")
        self._report("starting two pods that connect to each other without a policy")
        self._create(f"{_PATH}/pods", build_server(self._image, self._user))
        address = self._await(lambda: self._find_address(SERVER), "the server runs")
        before = self._probe([ProbePod.BEFORE], address)
        if outcome := judge_before(before[ProbePod.BEFORE]):
            return outcome
        self._report("connected; starting three pods that try the same under two policies")
        for policy in build_policies():
            self._create(_POLICIES, policy)
        return judge_findings(self._probe(UNDER_POLICIES, address))

    def _probe(self, pods: Sequence[ProbePod], address: str) -> dict[ProbePod, AttemptFinding]:
        """Run the pods at the same time and return their findings."""
        for pod in pods:
            self._create(f"{_PATH}/pods", build_client(pod, address, self._image, self._user))
        return {pod: self._await_finding(pod) for pod in pods}

    def _await_finding(self, pod: ProbePod) -> AttemptFinding:
        finding = read_finding(self._await(lambda: self._find_ended(pod), f"pod {pod} ends"))
        if finding is None:
            remedy = "give an r1plus-monitor image of this release by --image"
            raise _UnprovenError(fail(f"not proven: pod {pod} with {self._image} reported nothing", remedy))
        return finding

    def _remove_leftover(self) -> None:
        """Remove the namespace of an earlier run; one that is somebody else's is left alone."""
        try:
            found = self._api.request("GET", _PATH)["metadata"]
        except NotFoundError:
            return
        if not MARK.items() <= (found.get("labels") or {}).items():
            remedy = f"remove namespace {NAMESPACE}, which preflight needs for itself, or run it with --skip-network"
            raise _UnprovenError(fail(f"not proven: namespace {NAMESPACE} exists and is not preflight's", remedy))
        self._report(f"removing namespace {NAMESPACE}, which an earlier run has left")
        self._remove(str(found["uid"]))

    def _remove(self, uid: str) -> None:
        """Delete the namespace and wait until it is gone; another run's namespace of the same name is left alone."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        try:
            with suppress(NotFoundError):
                self._api.request("DELETE", _PATH, options)
            self._await(lambda: self._is_gone(uid), f"namespace {NAMESPACE} is gone", GONE_SECONDS)
        except (CliError, _UnprovenError) as error:
            self._report(
                f"namespace {NAMESPACE} may be left ({error}); remove it: kubectl delete namespace {NAMESPACE}"
            )

    def _is_gone(self, uid: str) -> bool:
        try:
            return bool(self._api.request("GET", _PATH)["metadata"]["uid"] != uid)
        except NotFoundError:
            return True

    def _find_account(self) -> Json | None:
        with suppress(NotFoundError):
            return self._api.request("GET", f"{_PATH}/serviceaccounts/default")
        return None

    def _find_address(self, name: str) -> str:
        """Return a running pod's address; empty: it does not run yet."""
        status = self._read_pod(name).get("status") or {}
        return str(status.get("podIP") or "") if status.get("phase") == "Running" else ""

    def _find_ended(self, name: str) -> Json | None:
        pod = self._read_pod(name)
        return pod if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed") else None

    def _read_pod(self, name: str) -> Json:
        """Return a pod. Raise _UnprovenError if its image cannot be pulled."""
        pod = self._api.request("GET", f"{_PATH}/pods/{name}")
        for status in (pod.get("status") or {}).get("containerStatuses") or ():
            waiting = (status.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") in _PULL_REASONS:
                seen = f"not proven: a node cannot pull {self._image}: {waiting['reason']}"
                remedy = "give the r1plus-monitor image where your nodes pull from, by --image"
                raise _UnprovenError(fail(seen, remedy))
        return pod

    def _create(self, path: str, body: Json) -> Json:
        return self._api.request("POST", path, body)

    def _await(self, look: Callable[[], T | None], what: str, seconds: float = READY_SECONDS) -> T:
        """Call `look` until it returns something true. Raise _UnprovenError after `seconds`."""
        end = self._clock.read() + seconds
        while not (seen := look()):
            if self._clock.read() >= end:
                remedy = f"see `kubectl get events -n {NAMESPACE}` while it runs, or give --skip-network"
                raise _UnprovenError(fail(f"not proven: waited {seconds:g} s until {what}", remedy))
            self._clock.sleep(POLL_SECONDS)
        return seen


def prove_network(api: ClusterReader, view: ClusterView, image: str, report: Callable[[str], None]) -> CheckOutcome:
    """Run the proof with an image, or with that of the release; a prefix that it was pulled from becomes a value.

    SIGTERM ends it as Ctrl-C does.
    """
    if check_platform(view).level is CheckLevel.FAIL:
        return warn("not proven: there is no node for its pods", "see the check nodes")
    assigns_users = bool(check_users(view).values)
    user = PodUser(None, None, None) if assigns_users else PodUser()
    proof = NetworkProof(api, image or find_image(view), user, report)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        outcome = proof.run()
    finally:
        signal.signal(signal.SIGTERM, previous)
    prefix = _PREFIXED.match(image)
    if prefix is None or outcome.level is not CheckLevel.OK:
        return outcome
    return replace(outcome, values=(ChartValue("images.prefix", prefix[1], "nodes pulled r1plus-monitor from there"),))


def find_image(view: ClusterView) -> str:
    """Return the monitor's image of an installed r1plus, or of the chart's default."""
    for operator in view.operators or ():
        for container in operator["spec"]["template"]["spec"]["containers"]:
            for variable in container.get("env") or ():
                if variable["name"] == "R1PLUS_MONITOR_IMAGE" and variable.get("value"):
                    return str(variable["value"])
    return f"r1plus-monitor:{version('r1plus')}"
