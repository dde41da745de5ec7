"""The addresses of this host's interfaces, from the system's getifaddrs."""

import ctypes
import ctypes.util
import socket
import sys


class _SockAddr(ctypes.Structure):
    # BSD systems have a length in front of the family.
    _fields_ = (
        [('family', ctypes.c_uint16)]
        if sys.platform == 'linux'
        else [('length', ctypes.c_uint8), ('family', ctypes.c_uint8)]
    )


class _Interface(ctypes.Structure):
    pass


_Interface._fields_ = [
    ('next', ctypes.POINTER(_Interface)),
    ('name', ctypes.c_char_p),
    ('flags', ctypes.c_uint),
    ('address', ctypes.POINTER(_SockAddr)),
]

# Behind family and port; an IPv6 address has its flow information in front of it.
_OFFSETS = {socket.AF_INET: (4, 4), socket.AF_INET6: (8, 16)}


def local_addresses() -> list[str]:
    """Return the IPv4 and IPv6 addresses of all interfaces, without the loopback's.

    Raises:
      ValueError: the system does not tell
    """

    try:
        libc = ctypes.CDLL(None, use_errno=True)
        getifaddrs, freeifaddrs = libc.getifaddrs, libc.freeifaddrs
    except (OSError, AttributeError, TypeError):
        raise ValueError('this system does not tell the addresses of its interfaces') from None

    head = ctypes.POINTER(_Interface)()

    if getifaddrs(ctypes.byref(head)) != 0:
        raise ValueError(f'the addresses of the interfaces cannot be read: error {ctypes.get_errno()}')

    found: list[str] = []

    try:
        interface = head

        while interface:
            address = interface.contents.address

            if address and address.contents.family in _OFFSETS:
                offset, size = _OFFSETS[address.contents.family]
                start = ctypes.cast(address, ctypes.c_void_p).value or 0
                text = socket.inet_ntop(address.contents.family, ctypes.string_at(start + offset, size))

                if not text.startswith('127.') and text != '::1':
                    found.append(text)

            interface = interface.contents.next
    finally:
        freeifaddrs(head)

    return found
