"""The connection protocol of RFC 4254: channels, their sessions, and the mux that carries them."""
