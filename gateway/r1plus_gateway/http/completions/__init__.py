"""Completions: forms of requests and answers, and the way of one request through the gateway."""
