"""Run the operator with a clock that is behind, and with patience: `python operator_at.py SECONDS`.

What a stored cluster says of time (a candidate's deadline, a quarantine's end, how old a probe of isolation is) holds at
the moment when it was recorded. This operator takes it over at that moment, however long ago it was. Its Lease and its
timers go by clocks that this does not touch.

It waits for the first answer of every monitor however busy the machine is. A pass before that writes that nothing is
known of a pod, so a start that has nothing to change would write.
"""

import runpy
import sys
import time

PATIENCE_SECONDS = 120.0


def main() -> None:
    """Set the clock back before anything of the operator is imported, make it patient, then run it."""
    behind, now = float(sys.argv.pop(1)), time.time
    time.time = lambda: now() - behind
    from r1plus_operator import main as operator
    from r1plus_operator.observe.monitors import monitor_poller

    operator.FIRST_ANSWERS_SECONDS = monitor_poller.TIMEOUT_SECONDS = PATIENCE_SECONDS
    runpy.run_module("r1plus_operator", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
