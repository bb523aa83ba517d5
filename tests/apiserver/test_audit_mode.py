"""The chart with `admissionPolicy.action: Audit`: who is refused otherwise is warned, and the operator is refused as ever."""

from collections.abc import Iterator

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_operator.api import kinds
from support.apiserver.chart import started_with_chart
from support.apiserver.manifests import MARK, config_map
from support.apiserver.people import Person, administrator, people
from support.apiserver.rights import OPERATOR
from support.waiting import wait_until

pytestmark = pytest.mark.apiserver
FORGED = config_map("probe", labels=MARK)
"""An object with the operator's mark, which nobody else may make."""


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with started_with_chart("admissionPolicy.action=Audit") as made:
        yield made


@pytest.fixture(scope="module")
def admin(server: ApiServer) -> Iterator[Person]:
    with administrator(server) as made:
        yield made


def test_who_would_be_refused_is_let_through_with_a_warning(admin: Person) -> None:
    answer = admin.ask("POST", kinds.CONFIG_MAP.path("default"), FORGED)
    assert answer.status == 201
    assert "r1plus-operator-children" in answer.warnings


def test_the_audit_log_says_what_would_be_refused(server: ApiServer, admin: Person) -> None:
    admin.do("POST", kinds.CONFIG_MAP.path("default"), FORGED)
    admin.do("DELETE", kinds.CONFIG_MAP.path("default", "probe"))

    def is_logged() -> bool:
        lines = server.audit_log.read_text().splitlines()
        return any("validation_failure" in line and "r1plus-operator-children" in line for line in lines)

    wait_until(is_logged, "the audit log names the policy")


def test_the_operators_own_account_is_refused_as_ever(server: ApiServer) -> None:
    with people(server, OPERATOR) as known:
        answer = known[OPERATOR].ask("POST", kinds.CONFIG_MAP.path("default"), config_map("probe"))
    assert answer.refused
    assert "r1plus-operator-operator-reach" in answer.text
