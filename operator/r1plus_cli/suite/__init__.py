"""Commands of golden suites."""
