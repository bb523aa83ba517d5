"""What the environment says of the prober of walls: read whole, or refused with variable and chart value."""

from collections.abc import Callable
from typing import Any

import pytest

from r1plus_operator.config import OperatorConfigError, load_settings
from r1plus_operator.plan.settings import IsolationTerms

Terms = Callable[..., IsolationTerms]


@pytest.fixture
def terms(least: dict[str, str]) -> Terms:
    """What is read of an environment that also says this."""
    return lambda **env: load_settings({**least, **env}).operator.isolation


def test_by_default_there_is_no_prober_and_the_api_server_is_anywhere(terms: Terms) -> None:
    found = terms()
    assert (found.decoy_namespace, found.interval, found.other_targets) == ("", 3600.0, {})
    assert (found.api_ports, found.api_cidrs) == ((443, 6443), ())


def test_all_of_it_is_read(terms: Terms) -> None:
    found = terms(
        R1PLUS_DECOY_NAMESPACE="r1plus-decoy",
        R1PLUS_PROBE_SECONDS="90",
        R1PLUS_API_SERVER_PORTS="443, 16443",
        R1PLUS_API_SERVER_CIDRS="10.0.0.1/32, 10.1.2.3/16,fd00::1/128",
        R1PLUS_PROMETHEUS_URL="http://prometheus:9090",
        R1PLUS_REGISTRY_URL="http://registry:8000",
        R1PLUS_RESERVED_NAMESPACES="openshift-dns,istio-system",
        R1PLUS_POLICIES_ENFORCED="false",
    )
    assert found == IsolationTerms(
        "r1plus-decoy",
        90.0,
        (443, 16443),
        ("10.0.0.1/32", "10.1.0.0/16", "fd00::1/128"),
        {"prometheus": "http://prometheus:9090", "registry": "http://registry:8000"},
        ("openshift-dns", "istio-system"),
        has_enforced_policies=False,
    )


@pytest.mark.parametrize("variable", ["R1PLUS_PROBE_SECONDS", "R1PLUS_API_SERVER_PORTS", "R1PLUS_API_SERVER_CIDRS"])
def test_what_is_empty_is_not_said(terms: Terms, variable: str) -> None:
    assert terms(**{variable: ""}) == terms()


@pytest.mark.parametrize(
    ("variable", "value", "names"),
    [
        *(("R1PLUS_PROBE_SECONDS", text, "isolation.everySeconds") for text in ("0", "-1", "hourly", "nan", "inf")),
        *(("R1PLUS_API_SERVER_PORTS", text, "networkPolicy.apiServerPorts") for text in ("https", "0", "65536", "443,-1", "4e3")),
        *(("R1PLUS_API_SERVER_CIDRS", text, "networkPolicy.apiServerCIDRs") for text in ("api", "10.0.0.0/33", "10.0.0.1/32,x")),
        *(("R1PLUS_DECOY_NAMESPACE", text, "isolation.decoyNamespace") for text in ("default", "kube-system", "n", "monitoring")),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(terms: Terms, variable: str, value: Any, names: str) -> None:
    with pytest.raises(OperatorConfigError) as raised:
        terms(**{variable: value})
    assert str(raised.value).startswith(variable)
    assert names in str(raised.value)


def test_monitoring_in_no_namespace_makes_no_prober_a_mistake(terms: Terms) -> None:
    assert terms(R1PLUS_MONITORING_NAMESPACE="").decoy_namespace == ""
