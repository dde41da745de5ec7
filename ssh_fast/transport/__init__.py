"""The SSH transport protocol (RFC 4253): version exchange, key exchange, services; no input or output of its own."""

from .host import TransportHost
from .options import TransportOptions
from .transport import Transport

__all__ = ['Transport', 'TransportHost', 'TransportOptions']
