"""`python -m r1plus_gateway`: see `process`."""

import os
import sys

from r1plus_gateway.grpc_environment import configure_grpc


def main() -> int:
    """Run the gateway; return the exit status."""
    configure_grpc(os.environ)
    from r1plus_gateway.process import run  # gRPC reads its environment while it is imported

    return run()


if __name__ == "__main__":
    sys.exit(main())
