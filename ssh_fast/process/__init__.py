"""Streams over session channels, and commands run as processes."""
