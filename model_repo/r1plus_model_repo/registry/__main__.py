"""`python -m r1plus_model_repo.registry serve | migrate | current | backup | restore`; the image starts `serve`."""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from r1plus_model_repo.registry import backup, migration
from r1plus_model_repo.registry.config import Settings, database_in, from_environment
from r1plus_model_repo.registry.errors import ConfigError, RegistryError
from r1plus_model_repo.registry.retention import Pruner
from r1plus_model_repo.registry.reviews import Reviews
from r1plus_model_repo.registry.service import BoundedRunner, Instruments, Service
from r1plus_model_repo.registry.storage import Storage

log = logging.getLogger(__name__)
DRAIN_SECONDS = 10.0


def main(arguments: Sequence[str]) -> int:
    """Parse the words after the program's name and run the verb; returns the exit status."""
    parser = argparse.ArgumentParser(prog="r1plus_model_repo.registry", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    verbs.add_parser("serve", help="migrate and answer until a signal").set_defaults(run=_serve)
    verbs.add_parser("current", help="print the revision of the schema").set_defaults(run=_current)
    migrate = verbs.add_parser("migrate", help="bring the schema to a revision, forward or back")
    migrate.add_argument("--to", default=migration.HEAD, metavar="REVISION", help="default: head, the newest")
    migrate.set_defaults(run=_migrate)
    copy = verbs.add_parser("backup", help="copy the SQLite database to a file, while the service runs")
    copy.add_argument("--to", required=True, type=Path, metavar="FILE")
    copy.set_defaults(run=_back_up)
    back = verbs.add_parser(
        "restore", help="put such a copy in the place of the SQLite database, while the service runs"
    )
    back.add_argument("--from", required=True, type=Path, metavar="FILE", dest="source")
    back.set_defaults(run=_restore)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    # It tells its dialect at every look at the schema, which each readiness probe is.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        options.run(options)
    except ConfigError as error:
        log.error("Configuration is not usable: %s", error)
        return 2
    except RegistryError as error:
        log.error("%s", error)
        return 1
    return 0


def _current(_: argparse.Namespace) -> None:
    with contextlib.closing(database_in()) as database:
        print(migration.current(database) or "none")


def _migrate(options: argparse.Namespace) -> None:
    with contextlib.closing(database_in()) as database:
        before, now = migration.migrate(database, options.to)
    print(f"{before or 'none'} -> {now or 'none'}")


def _back_up(options: argparse.Namespace) -> None:
    with contextlib.closing(database_in()) as database:
        backup.back_up(database, options.to)
    print(f"{options.to}: {options.to.stat().st_size} bytes")


def _restore(options: argparse.Namespace) -> None:
    with contextlib.closing(database_in()) as database:
        backup.restore(database, options.source)
        print(f"restored, at {migration.current(database)}; the operator tells what is missing within the hour")


def _serve(_: argparse.Namespace) -> None:
    asyncio.run(serve(from_environment()))


async def serve(chosen: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    storage = Storage(chosen.database)
    keeping = asyncio.create_task(storage.run())
    async with Reviews(chosen.api) as reviews:
        instruments = Instruments(storage)
        pruner = Pruner(storage, chosen.retention, instruments.pruned)
        service = Service(storage, reviews, chosen.writer, instruments, pruner)
        runner = BoundedRunner(service.application(), shutdown_timeout=DRAIN_SECONDS)
        await runner.setup()
        await web.TCPSite(runner, port=chosen.port).start()
        log.info("Registry listens on port %d, database %s", chosen.port, chosen.database.name)
        stopped, pruning = asyncio.create_task(stop.wait()), asyncio.create_task(pruner.run())
        try:
            await asyncio.wait({stopped, keeping, pruning}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await runner.cleanup()
            stopped.cancel()
            ended = keeping.done() or pruning.done()
            for task in (pruning, keeping):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task  # Raises where it ended by itself, which it must not.
            storage.close()
    if ended:
        raise RegistryError("The keeper of the schema, or the pruner, ended")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
