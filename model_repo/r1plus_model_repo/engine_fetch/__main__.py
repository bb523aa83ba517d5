"""`python -m r1plus_model_repo.engine_fetch --order-dir O --volume V`: put the engine of O/order.json on the volume V.

If the engine must be built first, `--stage fetch` prepares the input and `--stage seal` makes an engine of the build's
output. Exit code 0: the engine is there. 1: it is not, and the Job should retry. 2: it is not, and a retry cannot help.
The reason is on stderr and in the pod's status.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from r1plus_contract import names
from r1plus_contract.early_exit import end_at_sigterm
from r1plus_contract.engine.engine_fetch import CA_FILE, ORDER_FILE, PROXY_FILE, Archive, FillOrder, FillRefusal
from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.process.termination import TERMINATION_LOG, write_termination_message
from r1plus_model_repo.engine_fetch.download import create_tls_context, open_download
from r1plus_model_repo.engine_fetch.errors import FillError
from r1plus_model_repo.engine_fetch.progress import ProgressServer
from r1plus_model_repo.engine_fetch.seal import prepare_checkpoint, seal
from r1plus_model_repo.engine_fetch.storage import ReportProgress
from r1plus_model_repo.engine_fetch.unpack import unpack
from r1plus_model_repo.engine_fetch.volume import fill_volume

ALL, FETCH, SEAL = "all", "fetch", "seal"
"""Stages: all of the work, or the part before or after a build."""
MARGIN_BYTES = 64 * 2**20
"""Allowance for tar headers and for data that does not compress."""


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """How to fetch archives."""

    ca_pem: str
    """Certificates of the CAs to trust; empty: those of the image."""
    proxy: str
    """http://HOST:PORT; empty: connect to the server directly."""


def fetch_archive(
    archive: Archive, max_bytes: int, settings: FetchSettings, report: ReportProgress, part: Path
) -> None:
    """Download an archive, unpack it below `part` while it arrives, and compare its sha256."""
    limit = max_bytes + max_bytes // 100 + MARGIN_BYTES
    with open_download(
        archive.url, create_tls_context(settings.ca_pem), report, limit, proxy=settings.proxy
    ) as download:
        unpack(download, part, max_bytes)
        digest = download.read_to_end()
    if digest != archive.sha256:
        raise FillError(
            FillRefusal.ENGINE_DIGEST_MISMATCH,
            f"the archive is not the one that was registered: its sha256 is {digest}, spec.artifact.archive.sha256 is"
            f" {archive.sha256}; correct the sha256 or the file on the server",
        )


def main() -> int:
    """Put the engine on the volume and report the outcome."""
    parser = argparse.ArgumentParser(description="Put an engine on a volume.")
    parser.add_argument("--order-dir", type=Path, required=True)
    parser.add_argument("--volume", type=Path, required=True)
    parser.add_argument("--stage", choices=(ALL, FETCH, SEAL), default=ALL)
    parser.add_argument("--port", type=int, default=names.PORT_MONITOR)
    parser.add_argument("--termination-log", type=Path, default=TERMINATION_LOG)
    arguments = parser.parse_args()
    progress = ProgressServer()
    progress.serve(arguments.port)
    try:
        order, settings = read_order(arguments.order_dir)
        outcome = run_stage(arguments.stage, order, settings, arguments.volume, progress.update)
    except (FillError, ContractError, OSError) as error:
        print(error, file=sys.stderr)
        write_termination_message(arguments.termination_log, str(error))
        return error.exit_code if isinstance(error, FillError) else 1
    print(f"Engine {order.engine} {outcome}")
    return 0


def run_stage(stage: str, order: FillOrder, settings: FetchSettings, volume: Path, report: ReportProgress) -> str:
    """Run one stage and return a description of the result."""
    if stage == SEAL:
        # The name by which the builder's script knows the pod.
        seal(order, volume, os.environ.get("HOSTNAME") or os.uname().nodename, report)
        return "is on the volume, built for its GPU"
    fetch = partial(fetch_archive, order.archive, order.size, settings, report) if order.archive else None
    if stage == FETCH and prepare_checkpoint(order, volume, fetch, report):
        return "can be built, every file of its checkpoint is verified"
    if stage == ALL:
        fill_volume(order, volume, fetch, report)
    return "is on the volume, every file is verified"


def read_order(folder: Path) -> tuple[FillOrder, FetchSettings]:
    """Read the order and the settings next to it."""
    order = loads(FillOrder, (folder / ORDER_FILE).read_text(encoding="utf-8"))
    ca, proxy = (folder / CA_FILE, folder / PROXY_FILE)
    ca_pem, url = (path.read_text(encoding="utf-8") if path.exists() else "" for path in (ca, proxy))
    return order, FetchSettings(ca_pem, url.strip())


if __name__ == "__main__":
    end_at_sigterm()
    sys.exit(main())
