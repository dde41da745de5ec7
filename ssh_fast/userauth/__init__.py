"""The authentication protocol (RFC 4252, RFC 4256), client and server: messages in, messages out, no event loop."""
