"""Run the operator with a clock that is behind: `python operator_at.py SECONDS`.

What a stored cluster says of time (a candidate's deadline, a quarantine's end, how old a probe of isolation is) holds at
the moment when it was recorded. This operator takes it over at that moment, however long ago it was. Its Lease and its
timers go by clocks that this does not touch.
"""

import runpy
import sys
import time


def main() -> None:
    """Set the clock back before anything of the operator is imported, then run it."""
    behind, now = float(sys.argv.pop(1)), time.time
    time.time = lambda: now() - behind
    runpy.run_module("r1plus_operator", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
