"""The agent client: keys that another process holds."""
