"""SSH for asyncio, client and server, with a compiled hot path."""
