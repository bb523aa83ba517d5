"""Golden suites: their format, files, reference and baseline."""
