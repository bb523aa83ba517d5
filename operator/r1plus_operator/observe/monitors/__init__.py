"""What monitors report, and the detectors that it feeds."""
