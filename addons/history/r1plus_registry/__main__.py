"""`python -m r1plus_registry serve | migrate | current | backup | restore`; the image starts `serve`."""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from r1plus_contract.early_exit import end_at_sigterm
from r1plus_registry import backup, migration
from r1plus_registry.config import RegistrySettings, read_database, read_settings
from r1plus_registry.errors import RegistryConfigError, RegistryError
from r1plus_registry.retention import Pruner
from r1plus_registry.reviews import Reviews
from r1plus_registry.service import Instruments, RegistryRunner, Service
from r1plus_registry.storage import Storage

log = logging.getLogger(__name__)
DRAIN_SECONDS = 10.0


def main(arguments: Sequence[str]) -> int:
    """Parse the words after the program's name, run the verb, and return the exit status."""
    parser = argparse.ArgumentParser(prog="r1plus_registry", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    verbs.add_parser("serve", help="migrate and answer until a signal").set_defaults(run=_serve)
    verbs.add_parser("current", help="print the revision of the schema").set_defaults(run=_current)
    migrate_parser = verbs.add_parser("migrate", help="bring the schema to a revision, forward or back")
    migrate_parser.add_argument("--to", default=migration.HEAD, metavar="REVISION", help="default: head, the newest")
    migrate_parser.set_defaults(run=_migrate)
    backup_parser = verbs.add_parser("backup", help="copy the SQLite database to a file, while the service runs")
    backup_parser.add_argument("--to", required=True, type=Path, metavar="FILE")
    backup_parser.set_defaults(run=_back_up)
    restore_parser = verbs.add_parser(
        "restore", help="replace the SQLite database by such a copy, while the service runs"
    )
    restore_parser.add_argument("--from", required=True, type=Path, metavar="FILE", dest="source")
    restore_parser.set_defaults(run=_restore)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    # It logs its dialect at every check of the schema, so at each readiness probe.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        options.run(options)
    except RegistryConfigError as error:
        log.error("Configuration is invalid: %s", error)
        return 2
    except RegistryError as error:
        log.error("%s", error)
        return 1
    return 0


def _current(_: argparse.Namespace) -> None:
    with contextlib.closing(read_database()) as database:
        print(migration.read_revision(database) or "none")


def _migrate(options: argparse.Namespace) -> None:
    with contextlib.closing(read_database()) as database:
        before, now = migration.migrate(database, options.to)
    print(f"{before or 'none'} -> {now or 'none'}")


def _back_up(options: argparse.Namespace) -> None:
    with contextlib.closing(read_database()) as database:
        backup.back_up(database, options.to)
    print(f"{options.to}: {options.to.stat().st_size} bytes")


def _restore(options: argparse.Namespace) -> None:
    with contextlib.closing(read_database()) as database:
        backup.restore(database, options.source)
        print(f"restored, at {migration.read_revision(database)}; the operator reports what is missing within the hour")


def _serve(_: argparse.Namespace) -> None:
    asyncio.run(serve(read_settings()))


async def serve(settings: RegistrySettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    storage = Storage(settings.database)
    storage_task = asyncio.create_task(storage.run())
    async with Reviews(settings.api) as reviews:
        instruments = Instruments(storage)
        pruner = Pruner(storage, settings.retention, instruments.pruned)
        service = Service(storage, reviews, settings.writer, instruments, pruner)
        runner = RegistryRunner(service.build_application(), shutdown_timeout=DRAIN_SECONDS)
        await runner.setup()
        await web.TCPSite(runner, port=settings.port).start()
        log.info("Registry listens on port %d, database %s", settings.port, settings.database.name)
        stop_task, prune_task = asyncio.create_task(stop.wait()), asyncio.create_task(pruner.run())
        try:
            await asyncio.wait({stop_task, storage_task, prune_task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await runner.cleanup()
            stop_task.cancel()
            has_task_ended = storage_task.done() or prune_task.done()
            for task in (prune_task, storage_task):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task  # Raises if it ended by itself, which is an error.
            storage.close()
    if has_task_ended:
        raise RegistryError("A background task ended unexpectedly: the schema's migration, or the pruner")


if __name__ == "__main__":
    end_at_sigterm()
    sys.exit(main(sys.argv[1:]))
