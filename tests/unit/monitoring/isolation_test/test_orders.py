"""What a container is told: read whole, or refused with everything that is wrong with it."""

import json
from dataclasses import replace

import pytest

from r1plus_cli.local import DEFAULT_FAMILY, build_config
from r1plus_contract.jsonable import dumps
from r1plus_contract.monitor.isolation import Against, ApiRequest, ConnectionTarget, IsolationProbe
from r1plus_contract.process.termination import MAX_MESSAGE
from r1plus_monitoring.isolation_test.arguments import (
    OrderError,
    parse_connections,
    parse_ports,
    parse_requests,
    parse_seconds,
)
from r1plus_monitoring.isolation_test.termination_message import minimal_size
from r1plus_operator.plan.settings import IsolationTerms
from r1plus_operator.plan.tenancy import isolation_test_run

pytestmark = pytest.mark.first_run_counts

DOOR = {"name": "decoy", "host": "decoy.r1plus-decoy.svc", "port": 8000, "against": "decoy"}
QUESTION = {"name": "secrets", "method": "GET", "path": "/api/v1/secrets"}
WRITE = {"name": "write", "method": "POST", "path": "/api/v1/pods?pretty=1&dryRun=All", "body": "{}"}


def test_doors_are_read_as_the_contract_writes_them() -> None:
    connections = (
        ConnectionTarget("decoy", "decoy.r1plus-decoy.svc", 8000, Against.DECOY),
        ConnectionTarget("metadata", "169.254.169.254", 1, Against.PLATFORM),
        ConnectionTarget("node", "fd00::1", 65535, Against.OWN),
    )
    assert parse_connections(dumps(connections)) == connections


def test_questions_are_read_as_the_contract_writes_them() -> None:
    requests = (
        ApiRequest("secrets", "GET", "/api/v1/secrets"),
        ApiRequest("pods", "POST", "/api/v1/pods?dryRun=All", '{"kind":"Pod"}', "application/yaml", anonymous=True),
        ApiRequest("exec", "POST", "/api/v1/namespaces/a/pods/b/exec?command=true"),
        ApiRequest("none", "HEAD", "/"),
    )
    assert parse_requests(dumps(requests)) == requests


def test_what_the_operator_orders_can_be_tried() -> None:
    """The two rooms do not import each other: here they meet."""
    beside = {
        "prometheus": "http://prometheus.monitoring.svc:9090",
        "registry": "http://registry.r1plus-system.svc:8080",
    }
    config = replace(build_config(DEFAULT_FAMILY), isolation=IsolationTerms("r1plus-decoy", other_targets=beside))
    connections = isolation_test_run.list_connection_targets(
        IsolationProbe.CONTROL, isolation_test_run.IsolationTestRun("team", "u", "credit", {}, 0), config
    )
    # As the kubelet hands them over.
    assert len(parse_connections(dumps(connections).replace("$(R1PLUS_NODE_IP)", "10.0.0.1"))) == len(connections)
    requests = isolation_test_run.list_api_requests(config)
    assert parse_requests(dumps(requests)) == requests
    assert {one.against for one in connections} == set(Against)


@pytest.mark.parametrize(
    ("connections", "says"),
    [
        pytest.param("{", "--doors: not JSON", id="no JSON"),
        pytest.param("[" * 100_000, "--doors: not JSON", id="nested without end"),
        pytest.param("{}", "--doors: expected a list", id="no list"),
        pytest.param("[]", "--doors: empty list", id="nothing to try"),
        pytest.param([{**DOOR, "port": "8000"}], "--doors[0].port: expected a value of type int", id="a port in words"),
        pytest.param([{**DOOR, "port": 0}], "--doors[0].port: 0 is not from 1 to 65535", id="port 0"),
        pytest.param([{**DOOR, "port": 65536}], "--doors[0].port: 65536 is not", id="a port too high"),
        pytest.param([{**DOOR, "against": "world"}], "--doors[0].against: expected one of decoy, platform, own",
                     id="whose"),
        pytest.param([{**DOOR, "hots": "a"}], "--doors[0].hots: unknown field", id="a field misspelt"),
        pytest.param([{**DOOR, "name": ""}], "--doors[0].name: empty", id="no name"),
        pytest.param([{**DOOR, "host": ""}], "--doors[0].host: '' is no name or IP address", id="no host"),
        pytest.param([{**DOOR, "host": "a b"}], "--doors[0].host: 'a b' is no name", id="a host of two words"),
        pytest.param([{**DOOR, "host": "$(NODE_IP)"}], "--doors[0].host: '$(NODE_IP)' was not expanded",
                     id="a variable"),
        pytest.param([DOOR, DOOR], "--doors: 2 of them are named 'decoy'", id="two of one name"),
        pytest.param([{**DOOR, "name": f"a-connection-with-a-long-name-{n}"} for n in range(80)],
                     "--doors: the findings of 80 with these names take", id="more than there are words for"),
    ],
)  # fmt: skip
def test_doors_that_cannot_be_tried(connections: str | list[object], says: str) -> None:
    with pytest.raises(OrderError) as refused:
        parse_connections(connections if isinstance(connections, str) else json.dumps(connections))
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("api_request", "says"),
    [
        pytest.param({**QUESTION, "name": ""}, "--questions[0].name: empty", id="no name"),
        pytest.param({**QUESTION, "method": "get"}, "--questions[0].method: 'get' is no HTTP method",
                     id="in small letters"),
        pytest.param({**QUESTION, "method": "GET\n"}, "--questions[0].method", id="a method that ends the line"),
        pytest.param({**QUESTION, "path": "api"}, "--questions[0].path: 'api' is no path", id="no path"),
        pytest.param({**QUESTION, "path": "/a\r\nX: y"}, "--questions[0].path", id="a path that smuggles a header"),
        pytest.param({**QUESTION, "path": "/a b"}, "--questions[0].path", id="a path with a space"),
        pytest.param({**QUESTION, "path": "/ä"}, "--questions[0].path", id="a path that is not escaped"),
        pytest.param({**QUESTION, "contentType": "a\r\nX: y"}, "--questions[0].contentType", id="a type that smuggles"),
        pytest.param({**QUESTION, "body": "{"}, "--questions[0].body: '{' is not JSON", id="a body that is no JSON"),
        pytest.param({**WRITE, "path": "/api/v1/pods"}, "add dryRun=All", id="a write that would be done"),
        pytest.param({**WRITE, "path": "/api/v1/pods?dryRun=Al"}, "add dryRun=All", id="a dry run misspelt"),
        pytest.param({**WRITE, "path": "/api/v1/dryRun=All"}, "add dryRun=All", id="a dry run in the path"),
        pytest.param({**WRITE, "path": "/api/v1/pods?x=/exec"}, "add dryRun=All", id="a stream in the query"),
        pytest.param({**WRITE, "method": "DELETE", "path": "/api/v1/pods"}, "a DELETE must change nothing even if it is allowed",
                     id="a delete"),
        pytest.param({**QUESTION, "anonymous": 1}, "--questions[0].anonymous: expected a value of type bool", id="one"),
    ],
)  # fmt: skip
def test_questions_that_cannot_be_put(api_request: dict[str, object], says: str) -> None:
    with pytest.raises(OrderError) as refused:
        parse_requests(json.dumps([api_request]))
    assert says in str(refused.value)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    wrong = [{**DOOR, "port": 0}, {**DOOR, "host": "", "port": -1}]
    with pytest.raises(OrderError) as refused:
        parse_connections(json.dumps(wrong))
    said = str(refused.value).split("; ")
    assert [one.partition(":")[0] for one in said] == [
        "--doors[0].port",
        "--doors[1].host",
        "--doors[1].port",
        "--doors",
    ]


def test_thirty_two_doors_are_not_too_many() -> None:
    assert (
        len(parse_connections(json.dumps([{**DOOR, "name": f"decoy-pod-address-{n:02}:8000"} for n in range(32)])))
        == 32
    )


def test_names_may_fill_the_last_words_to_the_byte() -> None:
    name = "n" * (MAX_MESSAGE - minimal_size([""]))
    assert parse_connections(json.dumps([{**DOOR, "name": name}]))[0].name == name
    with pytest.raises(OrderError, match=f"take {MAX_MESSAGE + 1} bytes"):
        parse_connections(json.dumps([{**DOOR, "name": f"{name}n"}]))


@pytest.mark.parametrize("text", ["", "0", "65536", "8000,", "8000,8000", "http", "-1", "8000;8001", "²"])
def test_ports_that_nobody_can_listen_on(text: str) -> None:
    with pytest.raises(OrderError, match="--ports: "):
        parse_ports(text)


def test_ports_are_read() -> None:
    assert parse_ports("8000, 8001,1,65535") == (8000, 8001, 1, 65535)


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "3601", "half a minute"])
def test_seconds_that_are_none(text: str) -> None:
    with pytest.raises(OrderError, match="--rounds-for: "):
        parse_seconds(text)


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("0.5", 0.5), ("3600", 3600.0)])
def test_seconds_are_read(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds
