"""The cluster as commands see it: an interface, and a real cluster behind it."""
