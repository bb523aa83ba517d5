"""`python -m r1plus_monitoring`: the supervisor."""

import os

from r1plus_contract.early_exit import end_at_sigterm
from r1plus_contract.engine.grpc_environment import configure_grpc

if __name__ == "__main__":
    end_at_sigterm()
    configure_grpc(os.environ)
    from r1plus_monitoring.process.supervisor import main  # Takes seconds on a busy node.

    main()
