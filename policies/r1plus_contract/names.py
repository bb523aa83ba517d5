"""Names in Kubernetes objects and inside the serving pod that more than one room relies on."""

from typing import Final

GROUP: Final = "r1plus.ai"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
FIELD_MANAGER: Final = "r1plus-operator"
LEASE: Final = "r1plus-operator"
"""In the operator's namespace: whose holder is the one operator that writes."""

# Labels. Walls select DEPLOYMENT, Services select DEPLOYMENT + REVISION + SERVING.
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "r1plus-operator"
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_DEPLOYMENT: Final = f"{GROUP}/deployment"
LABEL_REVISION: Final = f"{GROUP}/revision"
LABEL_SERVING: Final = f"{GROUP}/serving"
LABEL_SUITE: Final = f"{GROUP}/suite"
"""On a ConfigMap that holds a golden suite; the value is the suite's name."""
LABEL_ENGINE: Final = f"{GROUP}/engine"
LABEL_VOLUME: Final = f"{GROUP}/volume"
"""On what brings an engine to a volume, and on the pods that mount it; the value is the volume's name."""

# Annotations.
ANNOTATION_DESIRED_HASH: Final = f"{GROUP}/desired-hash"
ANNOTATION_VERDICT: Final = f"{GROUP}/verdict"
"""On a ControllerRevision: the gate's report, as JSON (`GateReport`)."""
ANNOTATION_PROMOTED_AT: Final = f"{GROUP}/promoted-at"
ANNOTATION_CANDIDATE_SINCE: Final = f"{GROUP}/candidate-since"
"""On a ControllerRevision that is asked for and does not serve yet: since when, seconds since the epoch."""
ANNOTATION_OWNER_UID: Final = f"{GROUP}/deployment-uid"
"""On a serving pod: the uid of its R1PlusDeployment, so that a namesake's pods are not taken for its own."""
ANNOTATION_SERVED_BEFORE: Final = f"{GROUP}/served-before"
"""On a ControllerRevision that took traffic more than once: for how many seconds it did before the last time."""
ANNOTATION_ROLLBACK: Final = f"{GROUP}/rollback"
"""On a ControllerRevision that fell: the way back from it, step by step, as JSON (the operator's own)."""
ANNOTATION_POOL: Final = f"{GROUP}/pool"
"""On a ControllerRevision: checkpoint of the pooled detector, as JSON (`r1plus_policies.pool.Pool`)."""
ANNOTATION_QUARANTINE: Final = f"{GROUP}/quarantine"
"""On a pod in quarantine: since when, until when and why, as JSON (the operator's own)."""
ANNOTATION_DELIVERED: Final = f"{GROUP}/delivered"
"""On a PersistentVolumeClaim: digest of the engine that a Job has proved to be on it."""
ANNOTATION_VOLUME_UID: Final = f"{GROUP}/volume-uid"
"""On a Job that fills a volume: uid of the claim, so that a namesake's volume is not taken for filled."""
ANNOTATION_ORDER: Final = f"{GROUP}/order"
"""Beside it: digest of what the Job was told."""
SERVING: Final = "true"
QUARANTINED: Final = "quarantined"
"""Values of LABEL_SERVING: in traffic once Ready, and out of it whatever it says."""

# The serving pod.
CONTAINER_TRITON: Final = "triton"
CONTAINER_MONITOR: Final = "monitor"
INIT_ENGINE: Final = "engine"
INIT_VERIFY: Final = "verify"
CONTAINER_FILL: Final = "fill"
INIT_FETCH: Final = "fetch"
INIT_BUILD: Final = "build"
"""Of the Job that brings an engine to a volume."""

PORT_HTTP: Final = 8000
PORT_GRPC: Final = 8001
PORT_TRITON_METRICS: Final = 8002
PORT_MONITOR: Final = 8080

DIR_DELIVERY: Final = "/delivery"
"""emptyDir: `engine/` as copied from the engine image, `models/` the Triton repository assembled beside it."""
DIR_ENGINE: Final = f"{DIR_DELIVERY}/engine"
DIR_MODELS: Final = f"{DIR_DELIVERY}/models"
DIR_ENGINE_IN_IMAGE: Final = "/engine"
DIR_VOLUME: Final = "/volume"
"""Where the Job that fills it has a volume."""
DIR_ORDER: Final = "/etc/r1plus/order"
"""ConfigMap of that Job: `order.json` (`FillOrder`)."""
DIR_REVISION: Final = "/etc/r1plus/revision"
"""ConfigMap of the revision: `config.pbtxt`, `identity.json` (`ServingIdentity`)."""
DIR_ACCURACY: Final = "/etc/r1plus/accuracy"
"""ConfigMap of the deployment: `settings.json`, `suite.json`, `items.jsonl`, `verdicts.json`; it
changes while the pod lives."""
DIR_ADMISSION: Final = "/var/run/r1plus/admission"
"""emptyDir shared by monitor (writes) and Triton (reads): `token`."""
DIR_STATE: Final = "/var/run/r1plus/state"
"""emptyDir of the monitor alone: what it must not forget when its prober or its container restarts."""

ENV_IDENTITY: Final = "R1PLUS_IDENTITY"
ENV_NAMESPACE: Final = "R1PLUS_NAMESPACE"
ENV_DEPLOYMENT: Final = "R1PLUS_DEPLOYMENT"
ENV_REVISION: Final = "R1PLUS_REVISION"
ENV_POD: Final = "R1PLUS_POD"

KIND_DEPLOYMENT: Final = "R1PlusDeployment"
KIND_ENGINE: Final = "R1PlusEngine"
