"""Checks of what network policies have to name: the cluster's DNS and the API server's ports."""

import re
from collections.abc import Iterable, Iterator, Mapping

from r1plus_cli.preflight.cluster_view import ClusterView, Json
from r1plus_cli.preflight.outcome import ChartValue, CheckOutcome, not_known, ok, warn
from r1plus_operator.plan.settings import DnsPods, DnsTerms, IsolationTerms

OPENSHIFT_DNS = "openshift-dns"
DNS_PORT = 53
MOST = 8
"""Entries that the chart takes."""
NODE_CACHE = "node-local-dns"
"""Label k8s-app of NodeLocal DNSCache."""
NODE_CACHE_ADDRESS = "169.254.20.10"
_LINK_LOCAL = re.compile(r"\b169\.254\.\d{1,3}\.\d{1,3}\b")


def check_dns(view: ClusterView) -> CheckOutcome:
    """Judge whether the chart's network policies let pods reach the cluster's DNS."""
    if view.dns_services is None:
        return not_known("services in kube-system")
    pods = tuple(dict.fromkeys(_list_dns_pods(view.dns_services)))
    if not pods:
        remedy = "name the DNS pods in networkPolicy.dns.pods: their namespace and labels (kubectl get pods -A)"
        return warn("no Service with port 53 in kube-system or openshift-dns", remedy)
    values, seen = [], "; ".join(f"{namespace}: {_format(labels)}" for namespace, labels in pods)
    if not all(_is_default(namespace, dict(labels)) for namespace, labels in pods):
        value = [{"namespace": namespace, "labels": dict(labels)} for namespace, labels in pods[:MOST]]
        values.append(ChartValue("networkPolicy.dns.pods", value, "the cluster's DNS has these labels"))
    if addresses := _list_cache_addresses(view.daemon_sets or ()):
        seen += f"; a cache on each node at {', '.join(addresses)}"
        reason = "NodeLocal DNSCache listens on the node, which no selector of pods matches"
        values.append(ChartValue("networkPolicy.dns.cidrs", [f"{one}/32" for one in addresses[:MOST]], reason))
    return ok(seen, *values)


def check_api_ports(view: ClusterView) -> CheckOutcome:
    """Judge whether the chart's network policy lets the operator reach the API server."""
    service, default = view.api_service, IsolationTerms().api_ports
    if service is None or view.api_slices is None:
        return not_known("the Service default/kubernetes and its EndpointSlices")
    ports = {int(port["port"]) for port in (service.get("spec") or {}).get("ports") or ()}
    ports |= {int(port["port"]) for one in view.api_slices for port in one.get("ports") or () if port.get("port")}
    addresses = sorted({a for one in view.api_slices for end in one.get("endpoints") or () for a in end["addresses"]})
    seen = f"ports {', '.join(map(str, sorted(ports)))} at {', '.join(addresses) or 'no address'}"
    if not addresses:
        remedy = "see `kubectl get endpointslices -n default`; then set networkPolicy.apiServerPorts to what it shows"
        return warn(seen, remedy)
    if ports <= set(default):
        return ok(seen)
    reason = "the API server's ports, before and after its Service address is translated"
    return ok(seen, ChartValue("networkPolicy.apiServerPorts", sorted(ports), reason))


def _list_dns_pods(services: Iterable[Json]) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """Yield namespace and selector of each Service that is a DNS. On OpenShift its own is the one that pods ask."""
    found = [
        (str(service["metadata"]["namespace"]), tuple(sorted(selector.items())))
        for service in services
        if (selector := (service.get("spec") or {}).get("selector"))
        and any(port.get("port") == DNS_PORT for port in service["spec"].get("ports") or ())
    ]
    openshift = [one for one in found if one[0] == OPENSHIFT_DNS]
    return iter(openshift or found)


def _is_default(namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether the chart's default selects pods with these labels."""
    default: tuple[DnsPods, ...] = DnsTerms().pods
    return any(one.namespace == namespace and one.labels.items() <= labels.items() for one in default)


def _list_cache_addresses(daemon_sets: Iterable[Json]) -> list[str]:
    """Return where NodeLocal DNSCache listens; empty: there is none."""
    for one in daemon_sets:
        labels = one["metadata"].get("labels") or {}
        if NODE_CACHE in (labels.get("k8s-app"), one["metadata"]["name"]):
            containers = one["spec"]["template"]["spec"]["containers"]
            words = " ".join(word for container in containers for word in container.get("args") or ())
            return sorted(set(_LINK_LOCAL.findall(words))) or [NODE_CACHE_ADDRESS]
    return []


def _format(labels: Iterable[tuple[str, str]]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels)
