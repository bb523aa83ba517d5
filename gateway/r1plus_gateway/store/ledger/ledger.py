"""The ledger that the HTTP handlers see: reservations and settlements, through the one writer."""

import asyncio
import contextlib
import logging
from typing import Any, Final

from r1plus_gateway.access.caller import AccessError, AnswerEvidence, Caller, Outcome, Reservation, TokenUsage
from r1plus_gateway.store.errors import BusyError, StoreError
from r1plus_gateway.store.ledger.repository import LedgerRepository
from r1plus_gateway.store.ledger.writer import Writer

log = logging.getLogger(__name__)
ANSWER_SECONDS: Final = 10.0
"""Longest wait of a request; the driver's own time-outs are shorter."""
SETTLE_SECONDS: Final = 2.0
"""How long an answer waits for its settlement to be recorded, before it ends without that."""
RETRY_SECONDS: Final = 5.0


class StoreLedger:
    """Implements `Ledger`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def reserve(self, request_id: str, caller: Caller, model: str, tokens: int) -> Reservation:
        """Set tokens aside, as `Ledger` says.

        A reservation that no request waits for any more (its client left, or the wait was too long) is removed again.
        """

        def reserve(ledger: LedgerRepository) -> Reservation:
            return ledger.reserve(request_id, caller, model, tokens)

        has_answer = False
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reservation = await self._writer.submit(reserve)
            has_answer = True
            return reservation
        except StoreError as error:
            has_answer = not error.may_be_written
            raise refuse_unavailable(error) from error
        except TimeoutError as error:
            raise refuse_unavailable(error) from error
        except (AccessError, ValueError):
            has_answer = True
            raise
        finally:
            if not has_answer:
                self._void(request_id, caller)

    async def extend(self, reservation: Reservation, tokens: int, used: int) -> Reservation:
        """Set more tokens aside, as `Ledger` says. What is written without an answer is settled with the request."""

        def extend(ledger: LedgerRepository) -> Reservation:
            return ledger.extend(reservation, tokens, used)

        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._writer.submit(extend)
        except (StoreError, TimeoutError) as error:
            raise refuse_unavailable(error) from error

    async def settle(
        self, reservation: Reservation, usage: TokenUsage, outcome: Outcome, evidence: AnswerEvidence | None
    ) -> None:
        """Record what was used, as `Ledger` says.

        While the data cannot be written it waits in memory. If the gateway dies meanwhile, the next one asks the pods,
        or counts the whole reservation as used: usage is never lost. So this returns after a while even if nothing is
        recorded yet.
        """

        def settle(ledger: LedgerRepository) -> bool:
            return ledger.settle(reservation, usage, outcome, evidence)

        try:
            future = self._writer.submit(settle, is_required=True)
            async with asyncio.timeout(SETTLE_SECONDS):
                is_new = await asyncio.shield(future)
        except (StoreError, TimeoutError) as error:
            log.warning("Settlement of request %s is not recorded yet: %s", reservation.request_id, error)
            return
        if not is_new:
            log.warning("Request %s was settled before; nothing was counted again", reservation.request_id)

    def _void(self, request_id: str, caller: Caller) -> None:
        def void(ledger: LedgerRepository) -> Any:
            ledger.void(request_id, caller.limits)

        with contextlib.suppress(StoreError):
            self._writer.submit(void, is_required=True)


def refuse_unavailable(error: BaseException) -> AccessError:
    """Return the refusal of a request while the tenant's data cannot be used; it names no path and no host."""
    reason = error.reason.value if isinstance(error, StoreError) else "no answer in time"
    return AccessError(
        503,
        "data_unavailable",
        f"The tenant's data cannot be used now ({reason}), so requests can be neither counted nor served. Try again"
        " later; the platform team sees the cause in condition GatewayReady.",
        retry_after=1.0 if isinstance(error, BusyError) else RETRY_SECONDS,
    )
