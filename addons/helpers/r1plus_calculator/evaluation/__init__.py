"""Trees to results: SymPy finds them, mpmath checks them. No text is ever given to SymPy."""
