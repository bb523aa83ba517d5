"""Updates of what serves, and of the software that serves it."""
