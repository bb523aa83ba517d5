"""Grafana dashboards and the chart's copy of the rules, by `make generate`; README's picture. Development only."""
