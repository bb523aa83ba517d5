"""`python -m r1plus_gateway`: see `process`."""

import os
import sys

from r1plus_contract.early_exit import end_at_sigterm
from r1plus_contract.engine.grpc_environment import configure_grpc


def main() -> int:
    """Run the gateway; return the exit status."""
    end_at_sigterm()
    configure_grpc(os.environ)
    from r1plus_gateway.process import run  # gRPC reads its environment while it is imported

    return run()


if __name__ == "__main__":
    sys.exit(main())
