"""Sockets, and nothing else: the only part of the chain that knows ZeroMQ."""
