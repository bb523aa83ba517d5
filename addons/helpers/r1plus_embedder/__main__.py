"""`python -m r1plus_embedder [health]`: see `process` and `health`."""

import sys

from r1plus_contract.early_exit import end_at_sigterm


def main() -> int:
    """Run the embedder, or ask a running one; return the exit status."""
    end_at_sigterm()
    match sys.argv[1:]:
        case []:
            from r1plus_embedder.process import run

            return run()
        case ["health"]:
            from r1plus_embedder.health import check_health

            return check_health()
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main())
