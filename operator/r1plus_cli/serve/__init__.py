"""Commands of a deployment on this machine."""
