"""What is asked for: an R1PlusDeployment, of a file or of options, as far as it means something on one machine."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from r1plus_contract.verdict import Gate
from r1plus_edge.errors import EdgeRequestError
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.api.types import DeliveryMode, EngineSelector, R1PlusDeploymentSpec
from r1plus_operator.plan.observation import Json
from r1plus_policies.rollout import Strategy

DEFAULT_NAMESPACE: Final = "local"
"""The tenant's name where the file has none."""
_Spec = R1PlusDeploymentSpec
_REFUSED: Final[tuple[tuple[str, Callable[[_Spec], Any], str], ...]] = (
    ("replicas", lambda s: s.replicas if s.replicas != 1 else None, "one machine runs one pod; leave the field out"),
    ("placement.nodeSelector", lambda s: s.placement.node_selector or None, "there is one node; leave the field out"),
    ("placement.tolerations", lambda s: s.placement.tolerations or None, "there is one node; leave the field out"),
    ("access.namespaces", lambda s: s.access.namespaces or None, "callers have API keys here; leave the field out"),
    (
        "delivery.mode",
        lambda s: DeliveryMode.IMAGE.value if s.delivery.mode is DeliveryMode.IMAGE else None,
        "there are no images here: the engine's folder is served as it is; leave the field out",
    ),
)
"""Field of the spec, its value if it is refused, and why with the remedy."""


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """The deployment to serve."""

    name: str
    namespace: str
    spec: R1PlusDeploymentSpec
    """As the plan gets it."""

    @property
    def document(self) -> Json:
        """The spec as a CR has it."""
        return self.spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)

    def select_engine(self, engine: Engine) -> "ServeRequest":
        """Return the request for this engine alone, so that earlier ones may stay in the catalog to go back to.

        Raises:
            EdgeRequestError: the spec asks for another engine.
        """
        about = engine.spec
        wanted = EngineSelector(family=about.family, version=about.version, precision=about.precision)
        given = self.spec.engine.model_dump(exclude_none=True)
        if conflicts := [f"{key}: {value}" for key, value in given.items() if getattr(wanted, key) != value]:
            raise EdgeRequestError(
                f"--engine {engine.name}: the file has spec.engine: {', '.join(conflicts)}; leave one of them out"
            )
        return replace(self, spec=self.spec.model_copy(update={"engine": wanted}))

    def with_strategy(self, strategy: Strategy) -> "ServeRequest":
        """Return the request with this rollout strategy."""
        rollout = self.spec.rollout.model_copy(update={"strategy": strategy})
        return replace(self, spec=self.spec.model_copy(update={"rollout": rollout}))


def build_request(
    name: str, namespace: str, spec: R1PlusDeploymentSpec, *, tier: str = "", gate: Gate | None = None, suite: str = ""
) -> ServeRequest:
    """Return the request of a spec, with the options that go beyond it.

    Raises:
        EdgeRequestError: every field that means nothing on one machine, and every option that contradicts the spec.
    """
    problems = [
        f"spec.{field}: {format_value(value)}: {why}"
        for field, read, why in _REFUSED
        if (value := read(spec)) is not None
    ]
    if tier and tier != spec.tier.value:
        problems.append(f"--tier {tier}: the file has spec.tier: {spec.tier.value}; leave one of them out")
    if suite and spec.accuracy.suite not in (None, suite):
        problems.append(
            f"--suite {suite}: the file has spec.accuracy.suite: {spec.accuracy.suite}; leave one of them out"
        )
    if problems:
        raise EdgeRequestError("\n".join(problems))
    accuracy: dict[str, Any] = {"suite": suite} if suite else {}
    accuracy |= {"gate": gate} if gate is not None else {}
    delivery = spec.delivery.model_copy(update={"mode": DeliveryMode.VOLUME})
    updates = {"accuracy": spec.accuracy.model_copy(update=accuracy), "delivery": delivery}
    return ServeRequest(name, namespace or DEFAULT_NAMESPACE, spec.model_copy(update=updates))


def format_value(value: Any) -> str:
    """Return a field's value for a message."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, tuple):
        return f"{len(value)} entries" if len(value) > 1 else f"{value[0]}"
    return str(value)
