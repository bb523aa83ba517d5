"""torch for the tests of this folder, from the cache; `make test-model` runs them."""

from support.model import environment

environment.add_to_path()
