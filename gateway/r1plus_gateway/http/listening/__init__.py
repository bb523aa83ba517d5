"""Sockets of the servers: connections, host names, certificates."""
