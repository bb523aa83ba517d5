"""`python -m r1plus_documents [health]`: see `server.process`."""

import sys

from r1plus_contract.early_exit import end_at_sigterm
from r1plus_documents.server.process import check_health, run


def main() -> int:
    """Run the reader, or ask a running one; return the exit status."""
    end_at_sigterm()
    match sys.argv[1:]:
        case []:
            return run()
        case ["health"]:
            return check_health()
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main())
