"""API servers on which a rule can be dropped and restored while tests run: it is known when the server has taken that up."""

import json
import re
import uuid
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from devcluster.apiserver_only import ApiServer
from fuzz.judges import ENGINE
from mutation.cel.rules import DEFINITION, Json, Rule, drop_rule
from r1plus_operator.api import fence, kinds
from r1plus_operator.api.crd import CRD
from r1plus_operator.runtime.resources import Resource
from support.apiserver.manifests import POLICY, POLICY_BINDING, config_map, manifest, tenant_namespace
from support.apiserver.people import administrator
from support.waiting import wait_until

CANARY = "cel-mutants-canary"
_FAILURE = "validation.policy.admission.k8s.io/validation_failure"
_DENIAL = re.compile("ValidatingAdmissionPolicy '([^']+)'")
_SUBJECTS: dict[str, tuple[Resource, Json]] = {
    f"{resource.plural}.{resource.group}": (resource, spec)
    for resource, spec in (
        (kinds.R1PLUS_DEPLOYMENT, {"tier": "full"}),
        (kinds.R1PLUS_ENGINE, ENGINE),
        (kinds.R1PLUS_TENANT, {}),
    )
}
"""Definition -> its kind, and a spec that its schema takes."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that the server refused: by the first rule of a policy that was not met, or by a definition's schema."""

    at: datetime
    policy: str
    index: int | None
    """None where a test has written the policy's binding, so that the audit log has the text alone."""
    definition: str
    text: str

    def is_by(self, rule: Rule) -> bool:
        """Return whether it is this rule's, as far as the server says."""
        if rule.kind == DEFINITION:
            return self.definition == rule.owner and rule.is_broken_in(self.text)
        if self.index is None:
            return self.policy == rule.owner and rule.message in self.text
        return (self.policy, self.index) == (rule.owner, rule.index)


class MutableServer:
    """An API server whose rules come and go."""

    def __init__(self, server: ApiServer) -> None:
        """Have the policies tell the audit log which rule refused, and wait until they do."""
        self.server = server
        self._stack = ExitStack()
        self._admin = self._stack.enter_context(administrator(server))
        self._round = 0
        self._read = 0
        self._dropped: tuple[Rule, Json] | None = None
        self._admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(CANARY))
        for binding in self._list(POLICY_BINDING):
            audited = {"spec": {"validationActions": ["Deny", "Audit"]}}
            self._admin.do("PATCH", POLICY_BINDING.path(None, binding["metadata"]["name"]), audited)
        self._write_canary_policy()
        binding = {"policyName": CANARY, "validationActions": ["Deny"]}
        self._admin.do("POST", POLICY_BINDING.path(), manifest(POLICY_BINDING, CANARY, spec=binding))
        self._wait_for(kinds.CONFIG_MAP, config_map(CANARY, CANARY))

    @property
    def is_running(self) -> bool:
        """Whether the server has not been stopped."""
        try:
            return bool(self.server.layout)
        except RuntimeError:
            return False

    def close(self) -> None:
        """Close the connections to it."""
        self._stack.close()

    def drop(self, rule: Rule) -> None:
        """Take the rule away; return once the server refuses nothing by it any more. A server without its object stays."""
        resource = CRD if rule.kind == DEFINITION else POLICY
        path = resource.path(None, rule.owner)
        answer = self._admin.ask("GET", path)
        if answer.status == 404:
            return
        before = json.loads(answer.text)
        self._dropped = (rule, before["spec"])
        self._write(rule, drop_rule(before, rule)["spec"])

    def restore(self) -> None:
        """Put back what was dropped."""
        if self._dropped is not None:
            rule, spec = self._dropped
            self._dropped = None
            self._write(rule, spec)

    def read_refusals(self) -> list[Refusal]:
        """Return what has been refused since the last call, once the audit log has all of it."""
        mark = uuid.uuid4().hex
        self._admin.ask("GET", kinds.CONFIG_MAP.path("default", mark))

        def find() -> bytes:
            with self.server.audit_log.open("rb") as log:
                log.seek(self._read)
                text = log.read()
            whole = text[: text.rfind(b"\n") + 1]
            return whole if mark.encode() in whole else b""

        text = wait_until(find, f"the audit log has the newest request after its byte {self._read}")
        self._read += len(text)
        return list(_parse_refusals(text.decode().splitlines()))

    def _list(self, resource: Resource) -> list[Json]:
        return list(json.loads(self._admin.ask("GET", resource.path()).text)["items"])

    def _write(self, rule: Rule, spec: Json) -> None:
        """Write the spec, and wait for a sign that the server has read it."""
        if rule.kind == DEFINITION:
            self._write_definition(rule.owner, spec)
        else:
            body = {"spec": {"validations": spec["validations"]}}
            self._admin.do("PATCH", POLICY.path(None, rule.owner), body)
            # The server reads policies in the order in which they were written.
            self._write_canary_policy()
            self._wait_for(kinds.CONFIG_MAP, config_map(CANARY, CANARY))

    def _write_definition(self, name: str, spec: Json) -> None:
        self._round += 1
        resource, right = _SUBJECTS[name]
        versions = json.loads(json.dumps(spec["versions"]))
        for version in versions:
            schema = version["schema"]["openAPIV3Schema"]
            rules = [one for one in schema.get("x-kubernetes-validations", ()) if CANARY not in one["rule"]]
            sign = {"rule": f"self.metadata.name != '{CANARY}-{self._round}'", "message": self._sign}
            schema["x-kubernetes-validations"] = [*rules, sign]
        self._admin.do("PATCH", CRD.path(None, name), {"spec": {"versions": versions}})
        namespace = CANARY if resource.is_namespaced else ""
        self._wait_for(resource, manifest(resource, f"{CANARY}-{self._round}", namespace, spec=right))

    @property
    def _sign(self) -> str:
        return f"round {self._round} of {CANARY}"

    def _write_canary_policy(self) -> None:
        self._round += 1
        rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]
        spec = {
            "matchConstraints": {"resourceRules": rules},
            "matchConditions": [{"name": "canary", "expression": f"object.metadata.name == '{CANARY}'"}],
            "validations": [{"expression": "false", "message": self._sign}],
        }
        if self._round == 1:
            self._admin.do("POST", POLICY.path(), manifest(POLICY, CANARY, spec=spec))
        else:
            self._admin.do("PATCH", POLICY.path(None, CANARY), {"spec": spec})

    def _wait_for(self, resource: Resource, body: Json) -> None:
        namespace = CANARY if resource.is_namespaced else None
        wait_until(
            lambda: self._sign in self._admin.ask("POST", resource.path(namespace), body).text,
            f"the API server says {self._sign}",
            period_s=0.02,
        )


def _parse_refusals(lines: Iterable[str]) -> Iterable[Refusal]:
    for line in lines:
        if '"code":403' not in line and '"code":422' not in line:
            continue
        entry: dict[str, Any] = json.loads(line)
        if entry["stage"] != "ResponseComplete":
            continue
        at = datetime.fromisoformat(entry["requestReceivedTimestamp"])
        text = str(entry["responseStatus"].get("message", ""))
        about = entry.get("objectRef", {})
        if failed := entry.get("annotations", {}).get(_FAILURE):
            (first,) = json.loads(failed)
            yield Refusal(at, first["policy"], int(first["expressionIndex"]), "", text)
        elif entry["responseStatus"].get("code") == 422:
            yield Refusal(at, "", None, f"{about.get('resource')}.{about.get('apiGroup', '')}", text)
        elif found := _DENIAL.search(text):
            name = found.group(1)
            yield Refusal(at, fence.SUFFIX if name.endswith(fence.SUFFIX) else name, None, "", text)
