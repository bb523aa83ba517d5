"""`make bench NAME=advise`: `r1plus advise` on the example of a lender, with the engines of all three tiers of the demo.

It needs a machine that does nothing else for its speeds to mean anything. Not a test: it prints. The last line is JSON:
what `r1plus advise -o json` writes.
"""

import json
import os
import subprocess
import sys
import tempfile

from bench.running import exit_at_sigterm
from devcluster.cache import cache_dir
from devcluster.images.sources import ROOT
from support.edge.served import COMMAND

SUITE = ROOT / "examples" / "lending" / "lending-v1.yaml"
ENGINES = ("smollm2-full-f16", "smollm2-lite-q8-0", "smollm2-edge-q4-1")
CONTEXT, PRICE = "1024", "0.08"


def main() -> int:
    """Measure the engines in a folder of their own, so that none is known already; return the command's exit status."""
    exit_at_sigterm()
    with tempfile.TemporaryDirectory(prefix="r1plus-bench-") as data:
        words = ["--suite", str(SUITE), "--engines", ",".join(ENGINES), "--context", CONTEXT, "--price", PRICE]
        command = [str(COMMAND), "advise", *words, "--data", data, "-o", "json"]
        environment = {**os.environ, "R1PLUS_CACHE": str(cache_dir())}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.stdout:
        print(json.dumps(json.loads(done.stdout)))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
