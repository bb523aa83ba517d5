"""What the tests of a tenant's isolation share: the marks of its walls, and the operator's settings for them."""

import json
from collections.abc import Mapping
from typing import Any

from r1plus_contract import names
from r1plus_contract.monitor.isolation import IsolationPart
from r1plus_operator.api import kinds
from r1plus_operator.plan.settings import IsolationTerms, OperatorConfig
from support.apiserver.chart import DECOY_NAMESPACE
from support.apiserver.manifests import MARK
from support.apiserver.people import Answer, Person
from support.apiserver.rights import OPERATOR_NAMESPACE
from support.waiting import wait_until

POLICY = {**MARK, names.LABEL_ISOLATION: IsolationPart.TENANT.value}
"""Labels of what the operator makes in a tenant's namespace for its isolation."""
REVISION = "credit-0123456789"
CONFIGURED = OperatorConfig(
    "registry.local/m:1",
    "registry.local/t:1",
    "f",
    OPERATOR_NAMESPACE,
    "monitoring",
    isolation=IsolationTerms(decoy_namespace=DECOY_NAMESPACE),
)


def filled(value: Any, words: Mapping[str, str]) -> Any:
    """Return a path or a body with each `{word}` in it replaced by what it stands for."""
    text = json.dumps(value)
    for word, meant in words.items():
        text = text.replace(f"{{{word}}}", meant)
    return json.loads(text)


def assert_held(answer: Answer, policy: str, said: str) -> None:
    """Assert that this policy of the chart refused it, and said this."""
    assert answer.status == 403, answer
    assert f"ValidatingAdmissionPolicy 'r1plus-operator-{policy}'" in answer.text, answer
    assert said in answer.text, answer


def pod_of(admin: Person, namespace: str, selector: str) -> str:
    """Wait until the controllers have made a pod with these labels; return its name."""

    def find() -> str:
        items = json.loads(admin.ask("GET", f"{kinds.POD.path(namespace)}?labelSelector={selector}").text)["items"]
        return str(items[0]["metadata"]["name"]) if items else ""

    return wait_until(find, f"a pod with {selector} is made")
