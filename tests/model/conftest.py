"""torch for the tests of this folder, from the cache; `make test-model` runs them."""

from support.model import environment

environment.add_to_path()

import torch  # noqa: E402 - only now can it be imported

# Models here are too small for two: threads would wait for each other, and longer where others compute.
torch.set_num_threads(1)
