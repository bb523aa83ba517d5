"""Which gateways that share one PostgreSQL are gone, so that another one settles their reservations.

A gateway is gone if its beat has not changed for a while by this process's own clock, as with a Lease: no clocks are
compared, and after an outage of the database every gateway has time to beat again. Called by `store.tenant`.
"""

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.store.database import tables as t

BEAT_SECONDS: Final = 10.0
GONE_SECONDS: Final = 60.0


def read_beats(connection: Connection) -> dict[str, int]:
    """Return each gateway's last beat; also of those that only have reservations."""
    reserving = connection.scalars(sa.select(t.reservations.c.instance).distinct())
    beats = dict.fromkeys(reserving, 0)
    return beats | {row.id: row.beats for row in connection.execute(sa.select(t.instances))}


class InstanceWatch:
    """What this gateway has seen of the others."""

    def __init__(self, own: str, patience: float = GONE_SECONDS) -> None:
        self._own = own
        self._patience = patience
        self._seen: dict[str, tuple[int, float]] = {}

    def observe(self, beats: Mapping[str, int], moment: float) -> list[str]:
        """Return the gateways that are gone. `moment` is of a clock that only goes forward, in seconds."""
        self._seen = {
            name: seen if (seen := self._seen.get(name)) and seen[0] == beat else (beat, moment)
            for name, beat in beats.items()
            if name != self._own
        }
        return sorted(name for name, (_, since) in self._seen.items() if moment - since >= self._patience)
