"""The dashboards of `monitoring/dashboards`, read for tests; their queries, put to a Prometheus; README's picture."""
