"""schemathesis on the gateway's OpenAPI document: what it says is accepted, all else is refused, and nothing is a 500."""

import json
import os
import subprocess
import tempfile
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from conformance.environments import prepare
from conformance.results import Result

SEED: Final = 1
EXAMPLES: Final = 60
"""Of each operation, in addition to the bounds of each field."""
SECONDS: Final = 600
ANSWER_SECONDS: Final = 120
"""For one request, on a machine with much else to do: the longest computes 2,048 vectors."""
ADMIN: Final = "/v1/admin/"
HOOKS: Final = Path(__file__).with_name("fuzz_hooks.py")
"""Has a check in place of `positive_data_acceptance`, which knows no relations between fields."""
REFUSALS: Final = (400, 401, 403, 404, 405, 409, 413, 415, 429)
"""Of what the document does not allow. 413: a list that is too long may be a body that is too large; 409: a restore into data
that are in use is refused before its body is read."""
PHASES: Final = ("coverage", "fuzzing")


def run_fuzz(
    url: str, context_tokens: int, embedding: Mapping[str, Any], credentials: Mapping[str, str]
) -> Iterator[Result]:
    """Test every operation; `embedding`: the gateway's settings of it; `credentials`: of a `caller` and an `admin`."""
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=30) as answer:
        document = json.loads(answer.read())
    _name_the_model(document, context_tokens)
    _name_the_engine(document, embedding)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "openapi.json"
        for who, option in (("caller", "--exclude-path-regex"), ("admin", "--include-path-regex")):
            path.write_text(json.dumps(document))
            yield from _run(url, path, credentials[who], option, ADMIN)


def _name_the_model(document: Any, context_tokens: int) -> None:
    """Say in the document what only this gateway knows: else most requests end at a model that does not exist."""
    for operations in document["paths"].values():
        for operation in operations.values():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            properties = body.get("properties", {})
            if {"messages", "prompt", "input"} & properties.keys():
                properties["model"] = {"enum": ["credit"]}
            memory = properties.get("memory", {}).get("properties", {})
            if "budget_tokens" in memory:
                memory["budget_tokens"]["maximum"] = context_tokens


def _name_the_engine(document: Any, embedding: Mapping[str, Any]) -> None:
    body = document["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body["properties"]["model"] = {"enum": [embedding["name"]]}
    body["properties"]["dimensions"] = {"enum": [embedding["dimensions"], None]}


def _run(url: str, document: Path, credential: str, *choice: str) -> Iterator[Result]:
    report = document.with_name("report.xml")
    # The configuration takes the credential from the environment: a command line is for all to see.
    settings = document.with_name("schemathesis.toml")
    settings.write_text(
        f'hooks = "{HOOKS}"\nrequest-timeout = {ANSWER_SECONDS}\n'
        f'headers = {{ Authorization = "Bearer ${{CREDENTIAL}}" }}\n'
        f"[checks]\nnegative_data_rejection.expected-statuses = {list(REFUSALS)}\n"
    )
    command = [prepare("schemathesis") / "st", "--config-file", settings, "run", document, "--url", url, *choice]
    command += ["--phases", ",".join(PHASES), "--seed", str(SEED), "--max-examples", str(EXAMPLES), "--no-color"]
    command += ["--generation-database", "none", "--generation-allow-x00", "false"]
    command += [
        "--continue-on-failure",
        "--exclude-checks",
        "positive_data_acceptance",
        "--report",
        "junit",
        "--report-junit-path",
        report,
    ]
    environ = {**os.environ, "CREDENTIAL": credential}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=SECONDS, cwd=document.parent)
    if not report.exists():
        raise RuntimeError(f"schemathesis wrote no report: {done.stdout[-800:]}{done.stderr[-800:]}")
    for case in ElementTree.parse(report).iter("testcase"):
        problems = [
            entry.text or entry.get("message") or "" for kind in ("failure", "error") for entry in case.iter(kind)
        ]
        yield Result(case.get("name", "?"), problem=" | ".join(problems))
