"""Forwarding: sockets that lead into channels, and channels that lead to sockets."""
