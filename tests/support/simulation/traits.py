"""What the API server does differently for each kind: one table, by resource."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from r1plus_operator.api import kinds
from r1plus_operator.api.crd import build_definitions
from r1plus_operator.runtime.lease import LEASE
from r1plus_operator.runtime.resources import Resource
from support.simulation import builtin_defaults, schemas
from support.simulation.field_sets import Shape

Object = dict[str, Any]
REPLICA_SET = Resource("apps", "v1", "replicasets", "ReplicaSet")
SECRET = Resource("", "v1", "secrets", "Secret")

_KEYED = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "hostAliases": ("ip",),
    "podIPs": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "conditions": ("type",),
}
_ATOMIC_MAPS = (
    *("selector", "podSelector", "namespaceSelector", "labelSelector", "nodeSelector", "involvedObject", "roleRef"),
    *("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "dataSource", "objectReference"),
)
_OF_CONTAINERS = {"ports": ("containerPort", "protocol")}


def _build_shape(more: Mapping[str, tuple[str, ...]], atomic: tuple[str, ...] = ()) -> Shape:
    """Return the shape of a built-in kind. Its fields are known by their names alone."""
    children: dict[str, Shape] = {}
    for name, keys in {**_KEYED, **more}.items():
        children[name] = Shape(keys=keys, children=children)
    children["ownerReferences"] = Shape(keys=("uid",), has_atomic_items=True)
    children["finalizers"] = Shape(is_set=True)
    for name in (*_ATOMIC_MAPS, *atomic):
        children[name] = Shape(is_atomic=True)
    below = Shape(children=children)
    # A field of any other name holds fields that are known by their names, too.
    object.__setattr__(below, "others", below)
    for shape in children.values():
        if shape.keys:
            object.__setattr__(shape, "others", below)
    return below


@dataclass(frozen=True, slots=True)
class Traits:
    """One kind's. `schema` is a custom resource's; None: the kind is built in."""

    resource: Resource
    schema: Object | None = None
    shape: Shape = field(default_factory=lambda: _build_shape(_OF_CONTAINERS))
    has_status: bool = False
    counts_generations: bool = False
    allows_unconditional_update: bool = True
    """Whether an update without a resourceVersion replaces whatever is there."""
    notices_empty_lists: bool = False
    """Whether an empty list that is sent counts as a change, though it is dropped."""
    is_stored_twice: bool = False
    """Whether the first write after its creation is stored, even if it changes nothing."""
    set_defaults: Callable[[Object], None] = lambda _: None
    immutable: tuple[tuple[str, ...], ...] = ()
    """Paths of fields that no update changes."""
    is_optional: bool = False
    """Whether a cluster may lack the kind."""

    @property
    def list_kind(self) -> str:
        """The `kind` of its lists."""
        return f"{self.resource.kind}List"


def _custom(resource: Resource, schema: Object, *, has_status: bool, is_optional: bool = False) -> Traits:
    shape = schemas.build_shape(schema)
    meta = _build_shape({})
    shape.children["metadata"] = meta
    return Traits(
        resource,
        schema,
        shape,
        has_status=has_status,
        counts_generations=True,
        allows_unconditional_update=False,
        # A create drops the status; clients see its default, and the first write after it stores that.
        is_stored_twice="default" in schema.get("properties", {}).get("status", {}),
        is_optional=is_optional,
    )


_ANYTHING: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


@lru_cache(maxsize=1)
def build_traits() -> dict[Resource, Traits]:
    """Return every kind that the product, its tests' people or a cluster's controllers use."""
    table = [*_list_builtin(), *_list_custom()]
    known = {traits.resource for traits in table}
    others = (resource for resource in (*kinds.BY_KIND.values(), SECRET) if resource not in known)
    return {traits.resource: traits for traits in (*table, *(Traits(resource) for resource in others))}


def _list_builtin() -> list[Traits]:
    of_kind = kinds.BY_KIND
    pods = _build_shape(_OF_CONTAINERS)
    plain = _build_shape({"ports": ()})
    template = (("spec", "selector"),)
    return [
        Traits(kinds.NAMESPACE, shape=plain, has_status=True, set_defaults=builtin_defaults.default_namespace),
        Traits(kinds.NODE, shape=plain, has_status=True),
        Traits(
            kinds.POD, shape=pods, has_status=True, counts_generations=True, set_defaults=builtin_defaults.default_pod
        ),
        Traits(
            of_kind["Deployment"],
            shape=pods,
            has_status=True,
            counts_generations=True,
            set_defaults=builtin_defaults.default_deployment,
            immutable=template,
        ),
        Traits(
            REPLICA_SET,
            shape=pods,
            has_status=True,
            counts_generations=True,
            set_defaults=builtin_defaults.default_replica_set,
            immutable=template,
        ),
        Traits(
            of_kind["Job"],
            shape=_build_shape({**_OF_CONTAINERS, "conditions": ()}),
            has_status=True,
            counts_generations=True,
            set_defaults=builtin_defaults.default_job,
            immutable=(("spec", "selector"), ("spec", "template")),
        ),
        Traits(
            of_kind["Service"],
            shape=_build_shape({"ports": ("port", "protocol")}),
            has_status=True,
            set_defaults=builtin_defaults.default_service,
        ),
        Traits(
            of_kind["NetworkPolicy"],
            shape=plain,
            counts_generations=True,
            set_defaults=builtin_defaults.default_network_policy,
            notices_empty_lists=True,
        ),
        Traits(
            of_kind["PodDisruptionBudget"],
            shape=plain,
            has_status=True,
            counts_generations=True,
            set_defaults=builtin_defaults.default_budget,
        ),
        Traits(
            of_kind["PersistentVolumeClaim"],
            shape=plain,
            has_status=True,
            set_defaults=builtin_defaults.default_claim,
            is_stored_twice=True,
            immutable=(("spec", "accessModes"), ("spec", "storageClassName"), ("spec", "volumeName")),
        ),
        Traits(of_kind["ControllerRevision"], shape=_build_shape({}, ("data",)), immutable=(("data",),)),
        Traits(of_kind["ResourceQuota"], shape=plain, has_status=True, set_defaults=builtin_defaults.default_quota),
        Traits(
            of_kind["RoleBinding"],
            shape=plain,
            set_defaults=builtin_defaults.default_role_binding,
            immutable=(("roleRef",),),
        ),
        Traits(kinds.ENDPOINT_SLICE, shape=plain, counts_generations=True),
        Traits(LEASE, shape=plain, allows_unconditional_update=False),
        Traits(kinds.EVENT, shape=plain, set_defaults=builtin_defaults.default_event),
    ]


def _list_custom() -> list[Traits]:
    schemas_of = {crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0] for crd in build_definitions().values()}
    ours = [
        _custom(
            resource,
            schemas_of[resource.kind]["schema"]["openAPIV3Schema"],
            has_status="status" in schemas_of[resource.kind].get("subresources", {}),
        )
        for resource in (kinds.R1PLUS_DEPLOYMENT, kinds.R1PLUS_ENGINE, kinds.R1PLUS_TENANT)
    ]
    optional = (*kinds.OPTIONAL_CHILDREN, kinds.TRAIN_JOB)
    return [*ours, *(_custom(one, _ANYTHING, has_status=one == kinds.TRAIN_JOB, is_optional=True) for one in optional)]
