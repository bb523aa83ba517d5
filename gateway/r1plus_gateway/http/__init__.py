"""The HTTP API: request bodies, handlers, server-sent events, errors."""
