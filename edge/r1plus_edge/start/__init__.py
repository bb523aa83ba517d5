"""From the options of `r1plus serve` to what serves."""
