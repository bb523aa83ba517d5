"""Commands of a rollout: requests to the operator, and which images serve."""
