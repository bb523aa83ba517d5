"""Request bodies: their bytes, strict JSON, and tables of fields."""
