"""The server's side of SOCKS 4, 4A and 5 (RFC 1928), granting only CONNECT: bytes in, replies and a target out.

It knows no sockets: `feed` takes what came and gives what to reply. A request that is malformed, or asks for something
else, is refused in the words of its version; what is no SOCKS at all is refused without any. If it needs a password
(RFC 1929), `credentials` are there once they came, and nothing goes on until `judge` is told what they are worth.
"""

from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from struct import Struct

_MAX_NAME = 255       # of a host, as SOCKS 5 counts it, and of a user of SOCKS 4, which has no limit of its own

_MAX_AHEAD = 4096     # that may be sent along before the password was found right

_CONNECT = 1
_SOCKS4_GRANTED, _SOCKS4_REFUSED = 90, 91
_SOCKS5_GRANTED, _SOCKS5_HOST_UNREACHABLE, _SOCKS5_COMMAND, _SOCKS5_ADDRESS = 0, 4, 7, 8
_NO_AUTH, _PASSWORD, _NO_METHOD = 0, 2, 0xff
_PASSWORD_VERSION, _PASSWORD_RIGHT, _PASSWORD_WRONG = 1, 0, 1
_IPV4, _NAME, _IPV6 = 1, 3, 4

_PORT = Struct('>H')
_NOBODY = bytes(6)    # of a reply: an address and a port that say nothing


class SocksError(Exception):
    """What came is refused; `reply` is what to send first."""

    def __init__(self, reason: str, reply: bytes = b'') -> None:
        super().__init__(reason)
        self.reply = reply


class _State(Enum):
    GREETING = 'greeting'
    CREDENTIALS = 'credentials'
    JUDGEMENT = 'judgement'
    REQUEST = 'request'
    DONE = 'done'


class SocksRequest:
    """One client's request; `target` is the host and port once it is whole, and `rest` what came behind it."""

    def __init__(self, needs_password: bool = False) -> None:
        self.credentials: tuple[str, str] | None = None
        self.target: tuple[str, int] | None = None
        self.rest = b''
        self._data = bytearray()
        self._state = _State.GREETING
        self._version = 0
        self._method = _PASSWORD if needs_password else _NO_AUTH

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the client, and return what to reply at once.

        Raises:
          SocksError: the request is refused
        """

        self._data += data

        if self._state is _State.GREETING and self._data:
            self._version = self._data[0]

            if self._version not in (4, 5):
                raise SocksError(f'Expected version 4 or 5 of SOCKS, got {self._version}')

            if self._version == 5:
                return self._take_methods()

            if self._method == _PASSWORD:
                raise SocksError('Expected version 5 of SOCKS, with a password, got 4', self._refusal(0))

            self._state = _State.REQUEST

        self._take_rest()

        return b''

    def judge(self, right: bool) -> bytes:
        """Go on with a client whose credentials are right, and return what to reply.

        Raises:
          SocksError: they are not
        """

        if not right:
            raise SocksError('The password is wrong', bytes((_PASSWORD_VERSION, _PASSWORD_WRONG)))

        self.credentials = None
        self._state = _State.REQUEST
        self._take_rest()

        return bytes((_PASSWORD_VERSION, _PASSWORD_RIGHT))

    def granted(self) -> bytes:
        """Return the reply of a connection that is open."""

        if self._version == 4:
            return bytes((0, _SOCKS4_GRANTED)) + _NOBODY

        return bytes((5, _SOCKS5_GRANTED, 0, _IPV4)) + _NOBODY

    def failed(self) -> bytes:
        """Return the reply of a connection that could not be opened."""

        return self._refusal(_SOCKS5_HOST_UNREACHABLE)

    def _take_methods(self) -> bytes:
        if len(self._data) < 2 or len(self._data) < 2 + self._data[1]:
            return b''

        end = 2 + self._data[1]

        if self._method not in self._data[2:end]:
            expected = 'has a password' if self._method == _PASSWORD else 'needs no authentication'
            raise SocksError(f'Expected a client that {expected}', bytes((5, _NO_METHOD)))

        del self._data[:end]
        self._state = _State.CREDENTIALS if self._method == _PASSWORD else _State.REQUEST

        # Impatient clients send along what comes next.
        self._take_rest()

        return bytes((5, self._method))

    def _take_rest(self) -> None:
        if self._state is _State.CREDENTIALS:
            self._take_credentials()
        elif self._state is _State.JUDGEMENT:
            if len(self._data) > _MAX_AHEAD:
                raise SocksError('Expected a client that waits for an answer about its password')
        elif self._state is _State.REQUEST:
            if self._version == 4:
                self._take_socks4()
            else:
                self._take_socks5()

    def _take_credentials(self) -> None:
        data = self._data

        if data and data[0] != _PASSWORD_VERSION:
            raise SocksError(f'Expected version 1 of a password, got {data[0]}', bytes((1, _PASSWORD_WRONG)))

        if len(data) < 2 or len(data) < 3 + data[1] or len(data) < 3 + data[1] + data[2 + data[1]]:
            return

        password = 3 + data[1]
        end = password + data[password - 1]

        try:
            self.credentials = data[2 : password - 1].decode(), data[password:end].decode()
        except UnicodeDecodeError:
            raise SocksError('Expected a name and a password in UTF-8', bytes((1, _PASSWORD_WRONG))) from None

        del data[:end]
        self._state = _State.JUDGEMENT

    def _take_socks4(self) -> None:
        if len(self._data) >= 2:
            self._check_command(self._data[1])

        user_end = self._data.find(0, 8, 8 + _MAX_NAME + 1)

        if user_end < 0:
            if len(self._data) > 8 + _MAX_NAME:
                raise SocksError(f'Expected a user of at most {_MAX_NAME} bytes', self._refusal(0))

            return

        address = self._data[4:8]
        end = user_end + 1

        if address[:3] == bytes(3) and address[3]:
            name_end = self._data.find(0, end, end + _MAX_NAME + 1)

            if name_end < 0:
                if len(self._data) > end + _MAX_NAME:
                    raise SocksError(f'Expected a host of at most {_MAX_NAME} bytes', self._refusal(0))

                return

            host = self._name(bytes(self._data[end:name_end]))
            end = name_end + 1
        else:
            host = str(IPv4Address(bytes(address)))

        self._finish(host, _PORT.unpack_from(self._data, 2)[0], end)

    def _take_socks5(self) -> None:
        data = self._data

        if data and data[0] != 5:
            raise SocksError(f'Expected version 5 of SOCKS in the request, got {data[0]}', self._refusal(1))

        if len(data) >= 2:
            self._check_command(data[1])

        if len(data) < 5:
            return

        kind = data[3]

        if kind == _NAME:
            begin, size = 5, data[4]
        elif kind in (_IPV4, _IPV6):
            begin, size = 4, 4 if kind == _IPV4 else 16
        else:
            raise SocksError(f'Expected an address of type 1, 3 or 4, got {kind}', self._refusal(_SOCKS5_ADDRESS))

        if len(data) < begin + size + 2:
            return

        address = bytes(data[begin : begin + size])
        host = (
            self._name(address)
            if kind == _NAME
            else str(IPv4Address(address) if kind == _IPV4 else IPv6Address(address))
        )
        self._finish(host, _PORT.unpack_from(data, begin + size)[0], begin + size + 2)

    def _check_command(self, command: int) -> None:
        if command != _CONNECT:
            raise SocksError(f'Expected the command CONNECT, got {command}', self._refusal(_SOCKS5_COMMAND))

    def _name(self, data: bytes) -> str:
        try:
            name = data.decode()
        except UnicodeDecodeError:
            name = ''

        if not name or not name.isprintable() or ' ' in name:
            raise SocksError('Expected a host name', self._refusal(_SOCKS5_HOST_UNREACHABLE))

        return name

    def _finish(self, host: str, port: int, end: int) -> None:
        self.target = host, port
        self.rest = bytes(self._data[end:])
        self._data.clear()
        self._state = _State.DONE

    def _refusal(self, code: int) -> bytes:
        if self._version == 4:
            return bytes((0, _SOCKS4_REFUSED)) + _NOBODY

        return bytes((5, code, 0, _IPV4)) + _NOBODY
