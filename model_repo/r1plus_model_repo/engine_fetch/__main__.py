"""`python -m r1plus_model_repo.engine_fetch --order-dir O --volume V`: fill the volume V as O/order.json says.

Where the engine has to be built first, `--stage fetch` lays out what of, and `--stage seal` makes an engine of what was
built in between. Exit code 0: it is there. 1: it is not, and the Job should try again. 2: it is not, and never will be
by trying. Why is on stderr and in the pod's status.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from r1plus_contract import names
from r1plus_contract.engine_fetch import CA_FILE, ORDER_FILE, PROXY_FILE, Archive, FillOrder, FillRefusal
from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.termination import TERMINATION_LOG, write_termination_message
from r1plus_model_repo.engine_fetch.download import opened, trust
from r1plus_model_repo.engine_fetch.errors import FillError
from r1plus_model_repo.engine_fetch.progress import Board
from r1plus_model_repo.engine_fetch.seal import lay_out, seal
from r1plus_model_repo.engine_fetch.storage import Tell
from r1plus_model_repo.engine_fetch.unpack import unpack
from r1plus_model_repo.engine_fetch.volume import fill

ALL, FETCH, SEAL = "all", "fetch", "seal"
"""Stages: the whole work, and its parts before and after a build."""
MARGIN_BYTES = 64 * 2**20
"""Of an archive, beyond its files: headers, and what does not compress."""


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """How archives are fetched."""

    ca_pem: str
    """Certificates of the CAs that may vouch for a server; empty: those that the image trusts."""
    proxy: str
    """http://HOST:PORT; empty: straight from the server."""


def fetch(archive: Archive, most: int, settings: FetchSettings, tell: Tell, part: Path) -> None:
    """Download, unpack below `part` as it comes, and compare the sha256 of what came."""
    limit = most + most // 100 + MARGIN_BYTES
    with opened(archive.url, trust(settings.ca_pem), tell, limit, proxy=settings.proxy) as download:
        unpack(download, part, most)
        found = download.rest()
    if found != archive.sha256:
        raise FillError(
            FillRefusal.ENGINE_DIGEST_MISMATCH,
            f"the archive's sha256 is {found}, spec.artifact.archive.sha256 promises {archive.sha256}; the server holds"
            " another file than was registered",
        )


def main() -> int:
    """Fill, and tell how it went."""
    parser = argparse.ArgumentParser(description="Fill a volume with an engine.")
    parser.add_argument("--order-dir", type=Path, required=True)
    parser.add_argument("--volume", type=Path, required=True)
    parser.add_argument("--stage", choices=(ALL, FETCH, SEAL), default=ALL)
    parser.add_argument("--port", type=int, default=names.PORT_MONITOR)
    parser.add_argument("--termination-log", type=Path, default=TERMINATION_LOG)
    arguments = parser.parse_args()
    board = Board()
    board.serve(arguments.port)
    try:
        order, settings = read(arguments.order_dir)
        said = run(arguments.stage, order, settings, arguments.volume, board.tell)
    except (FillError, ContractError, OSError) as error:
        print(error, file=sys.stderr)
        write_termination_message(arguments.termination_log, str(error))
        return error.exit_code if isinstance(error, FillError) else 1
    print(f"Engine {order.engine} {said}")
    return 0


def run(stage: str, order: FillOrder, settings: FetchSettings, volume: Path, tell: Tell) -> str:
    """Do it; what there is to say of the engine then."""
    if stage == SEAL:
        # As the builder's script names the pod.
        seal(order, volume, os.environ.get("HOSTNAME") or os.uname().nodename, tell)
        return "is on the volume, built for its GPU"
    how = partial(fetch, order.archive, order.size, settings, tell) if order.archive else None
    if stage == FETCH and lay_out(order, volume, how, tell):
        return "can be built, every file of its checkpoint as promised"
    if stage == ALL:
        fill(order, volume, how, tell)
    return "is on the volume, every file as promised"


def read(folder: Path) -> tuple[FillOrder, FetchSettings]:
    """The order, and what came with it of how to fetch."""
    order = loads(FillOrder, (folder / ORDER_FILE).read_text(encoding="utf-8"))
    ca, proxy = (folder / CA_FILE, folder / PROXY_FILE)
    ca_pem, url = (path.read_text(encoding="utf-8") if path.exists() else "" for path in (ca, proxy))
    return order, FetchSettings(ca_pem, url.strip())


if __name__ == "__main__":
    sys.exit(main())
