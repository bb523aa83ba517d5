"""What every step of a pass reads. Made once a pass, by `deployment.plan`; no step changes it."""

from dataclasses import dataclass

from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.engine.selection import Problem
from r1plus_operator.plan.observation import GatewayView, Observation
from r1plus_operator.plan.settings import OperatorConfig


@dataclass(frozen=True, slots=True)
class PassInputs:
    """One pass over one R1PlusDeployment."""

    observed: Observation
    """Its foreign pods are split off, and gates that nothing proves are taken out of its reports."""
    config: OperatorConfig
    """As it applies in the deployment's namespace."""
    now: float
    """Seconds since the epoch."""
    spec: R1PlusDeploymentSpec
    problem: Problem | None = None
    """Why the spec yields no revision; None: it yields one."""
    gone: str = ""
    """The revision that served, where nothing is left of it and its name remains selected; empty: there is none."""

    @property
    def is_tenant(self) -> bool:
        """Whether anything may be written into the namespace."""
        return self.observed.tenant is None or self.observed.tenant.is_tenant

    @property
    def gateway(self) -> GatewayView | None:
        """The tenant's gateway; None: there is none."""
        return self.observed.tenant.gateway if self.observed.tenant else None
