"""The tenant's gateway: an OpenAI-compatible HTTP API before the models that one namespace serves."""
