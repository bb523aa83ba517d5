"""What to serve, with what, and where: the options of `serve` as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from r1plus_contract.jsonable import dumps
from r1plus_edge.data_folder import DataFolder
from r1plus_edge.pods.images import Images
from r1plus_edge.start.deployment import ServeRequest
from r1plus_edge.start.engines import find_cache
from r1plus_edge.start.listening import Listening
from r1plus_edge.start.tenant import TenantRequest
from r1plus_edge.wording import build_wording
from r1plus_model_repo.catalog.types import Backend, Engine
from r1plus_operator.plan.observation import SuiteSource
from r1plus_operator.plan.settings import OperatorConfig, SuiteTrust, VolumeTerms
from r1plus_policies.rollback.response import BAKE_SECONDS

NAMESPACE: Final = "r1plus-system"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What to serve, with what, and where."""

    request: ServeRequest
    engines: tuple[Engine, ...]
    """Those that may be chosen."""
    suites: Mapping[str, SuiteSource]
    trust: SuiteTrust
    family: str
    """Of engines, where the spec names none."""
    data: Path
    listening: Listening
    given_engine: Path | None = None
    """Folder with the engine's files, where the user names one."""
    catalog: tuple[Engine, ...] = ()
    """All engines that are known, for earlier revisions."""
    bake_seconds: float = BAKE_SECONDS
    """How long a revision must have served before it can be gone back to."""
    words: tuple[str, ...] = ()
    """The command line after the program: other software is started with the same."""
    cache: Path = field(default_factory=find_cache)
    tenant: TenantRequest = field(kw_only=True)
    """What of the gateway is on, and what it keeps. An update does not change it."""

    @property
    def digest(self) -> str:
        """Of what is asked for; 64 hex digits. An update holds only for the options that it was made on."""
        names = sorted(engine.name for engine in self.engines)
        asked = [self.request.name, self.request.namespace, self.request.document, names, str(self.given_engine or "")]
        return sha256(dumps(asked).encode()).hexdigest()


def build_config(options: ServeOptions, images: Images, folder: DataFolder) -> OperatorConfig:
    """Return the operator's settings that hold on one machine with this data folder."""
    return OperatorConfig(
        monitor_image=images.monitor,
        triton_image=images.triton,
        cpu_runtimes={Backend.TORCH.value: images.torch} if images.torch else {},
        gateway_image=images.gateway,
        default_family=options.family,
        operator_namespace=NAMESPACE,
        monitoring_namespace=NAMESPACE,
        suite_trust=options.trust,
        # Who names the engine's folder owns the machine; its digest is verified all the same.
        volumes=VolumeTerms(require_signature=False),
        bake_seconds=options.bake_seconds,
        wording=build_wording(folder),
    )
