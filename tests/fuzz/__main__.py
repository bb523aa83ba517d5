"""`make test-long NAME=fuzz-cr`: CRs from the CRDs' own schema; the real API server and the pydantic models must agree on each.

The last line is JSON. The exit status is 1 where the judges disagree, or where a share of verdicts is too small for the
run to have tested anything.
"""

import argparse
import asyncio
import json
import secrets
import sys
from collections.abc import Sequence

from devcluster import binaries
from devcluster.apiserver_only import ApiServer
from devcluster.parts import API_SERVER_BINARIES
from devcluster.steps import Steps
from fuzz.campaign import Result, problems, run
from fuzz.judges import Server, stored, subjects
from r1plus_operator.api import crd
from r1plus_operator.runtime.client import ApiClient
from support.apiserver.server import install_crd


async def against(server: ApiServer, count: int, seed: int) -> Result:
    """Install the CRDs, store what has a status to be written, and run."""
    async with ApiClient.from_kubeconfig(server.kubeconfig) as client:
        for definition in crd.build_definitions().values():
            await install_crd(client, definition)
        there = await stored(client)
    async with Server(server.kubeconfig) as judge:
        return await run(judge, subjects(*there), count, seed, _progress)


def _progress(result: Result) -> None:
    print(f"  {result.cases} cases, {result.admitted} admitted, {len(result.disagreements)} disagreements", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run, tell, and say it in JSON."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run, to see it again")
    options = parser.parse_args(arguments)
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    print(f"{options.cases} cases, SEED={seed}", flush=True)
    binaries.build(Steps(len(API_SERVER_BINARIES)), API_SERVER_BINARIES)
    with ApiServer() as server:
        result = asyncio.run(against(server, options.cases, seed))
    wrong = problems(result)
    for problem in wrong:
        print(problem)
    figures = {
        "cases": result.cases,
        "disagreements": len(result.disagreements),
        "admitted": result.admitted,
        "refused": result.refused,
        "seconds": round(result.seconds, 1),
        "seed": seed,
        "admitted_by_subject": dict(sorted(result.admitted_by_subject.items())),
    }
    print(json.dumps(figures))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
