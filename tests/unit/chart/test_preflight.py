"""What `r1plus preflight` takes the chart to need is what the chart has, and the chart takes the values that it writes."""

import re

import yaml

from r1plus_cli.preflight.checks import list_rights, run_checks
from r1plus_cli.preflight.cluster_checks import LEAST_VERSION, POLICIES
from r1plus_cli.preflight.cluster_view import ClusterView
from r1plus_cli.preflight.monitoring_checks import DEFAULT_NAMESPACE, KINDS
from r1plus_cli.preflight.values_file import format_values
from r1plus_operator.plan.settings import DnsTerms, IsolationTerms
from support.chart import CHART, PROMETHEUS_OPERATOR, Render, environment
from support.cli.cluster_api import GOOD, ONE_CLASS, OPENSHIFT, UNUSUAL
from support.tables import for_each

DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


def test_the_least_version_is_the_charts() -> None:
    least = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]
    assert least == f">={'.'.join(map(str, LEAST_VERSION))}.0-0"


def test_the_defaults_are_the_charts() -> None:
    (pods,) = DnsTerms().pods
    assert DEFAULTS["networkPolicy"]["dns"] == {
        "pods": [{"namespace": pods.namespace, "labels": dict(pods.labels)}],
        "cidrs": [],
    }
    assert DEFAULTS["networkPolicy"]["apiServerPorts"] == list(IsolationTerms().api_ports)
    assert DEFAULTS["monitoring"]["namespace"] == DEFAULT_NAMESPACE


def test_the_rights_are_for_every_kind_that_helm_makes(render: Render) -> None:
    made = {(one["apiVersion"].rpartition("/")[0], one["kind"].lower()) for one in render(kinds=PROMETHEUS_OPERATOR)}
    made.add(("apiextensions.k8s.io", "customresourcedefinition"))  # Below crds/, which `helm template` leaves out.
    asked = {(right.group, re.sub("ie$", "y", right.plural.removesuffix("s"))) for right in list_rights(KINDS)}
    assert asked == made


def test_without_prometheus_operator_no_right_to_its_kinds_is_needed() -> None:
    assert {right.group for right in list_rights({POLICIES})} & {"monitoring.coreos.com"} == set()


@for_each("view", {
    "a cluster as most are": GOOD,
    "OpenShift": OPENSHIFT,
    "a cluster that is unusual in all": UNUSUAL,
    "a cluster with one StorageClass that is no default": ONE_CLASS,
})  # fmt: skip
def test_the_chart_takes_the_values_that_are_written(render: Render, view: ClusterView) -> None:
    written = [value for _, outcome in run_checks(view) for value in outcome.values]
    values = yaml.safe_load(format_values(written))
    env = environment(render(values))
    for value in written:
        if value.path == "networkPolicy.apiServerPorts":
            assert env["R1PLUS_API_SERVER_PORTS"] == ",".join(map(str, value.value))
        if value.path == "podSecurity.runAsUser":
            assert '"runAsUser":1000' not in env["R1PLUS_POD_USER"]
