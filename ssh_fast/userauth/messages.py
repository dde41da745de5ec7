"""The messages of RFC 4252 and RFC 4256: method names, layouts, and the limits on what is put into them.

    USERAUTH_REQUEST   byte 50, string user name, string service, string method, method's own fields
      publickey        boolean signed, string algorithm, string key blob [, string signature]
      password         boolean change, string password [, string new password]
      hostbased        string algorithm, string key blob, string client host, string client user name, string signature
      keyboard-interactive   string language, string submethods
    INFO_REQUEST       byte 60, string name, string instruction, string language, uint32 n, n prompts
      prompt           string text, boolean echo
    INFO_RESPONSE      byte 61, uint32 n, n x string response
"""

from collections.abc import Iterable, Sequence
from typing import Final

from ..constants import (
    MSG_USERAUTH_BANNER,
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_REQUEST,
    MSG_USERAUTH_SUCCESS,
)
from ..errors import PacketDecodeError, ProtocolError
from ..wire import Cursor, encode_boolean, encode_byte, encode_name_list, encode_string, encode_uint32

SERVICE_USERAUTH: Final = b'ssh-userauth'
SERVICE_CONNECTION: Final = b'ssh-connection'

NONE: Final = b'none'
PUBLIC_KEY: Final = b'publickey'
PASSWORD: Final = b'password'
HOST_BASED: Final = b'hostbased'
KEYBOARD_INTERACTIVE: Final = b'keyboard-interactive'
GSSAPI_WITH_MIC: Final = b'gssapi-with-mic'
GSSAPI_KEYEX: Final = b'gssapi-keyex'

DEFAULT_METHODS: Final = (GSSAPI_KEYEX, GSSAPI_WITH_MIC, HOST_BASED, PUBLIC_KEY, KEYBOARD_INTERACTIVE, PASSWORD)

# Method-dependent numbers: each is meant for one method, and only while that method runs
MSG_USERAUTH_PK_OK: Final = 60
MSG_USERAUTH_PASSWD_CHANGEREQ: Final = 60
MSG_USERAUTH_INFO_REQUEST: Final = 60
MSG_USERAUTH_INFO_RESPONSE: Final = 61

# Limits, in bytes and counts; OpenSSH has the same ones for passwords and prompts
MAX_USERNAME: Final = 1024
MAX_PASSWORD: Final = 1024
MAX_PROMPTS: Final = 100

# INFO_REQUESTs in one login: an honest dialogue has a handful, and a loop must end without a clock
MAX_KBDINT_ROUNDS: Final = 20

Prompts = Sequence[tuple[str, bool]]
Challenge = tuple[str, str, str, Prompts]


def encode_request(username: str, method: bytes, fields: bytes = b'') -> bytes:
    """Encode a USERAUTH_REQUEST for the connection service."""

    return b''.join(
        (
            encode_byte(MSG_USERAUTH_REQUEST),
            encode_string(username),
            encode_string(SERVICE_CONNECTION),
            encode_string(method),
            fields,
        )
    )


def encode_failure(methods: Iterable[bytes], partial: bool) -> bytes:
    """Encode a USERAUTH_FAILURE with the methods that can continue."""

    return encode_byte(MSG_USERAUTH_FAILURE) + encode_name_list(methods) + encode_boolean(partial)


def encode_success() -> bytes:
    """Encode a USERAUTH_SUCCESS."""

    return encode_byte(MSG_USERAUTH_SUCCESS)


def encode_banner(message: str, lang: str) -> bytes:
    """Encode a USERAUTH_BANNER."""

    return encode_byte(MSG_USERAUTH_BANNER) + encode_string(message) + encode_string(lang)


def encode_pk_ok(algorithm: bytes, key_data: bytes) -> bytes:
    """Encode a USERAUTH_PK_OK for the algorithm and key that were asked about."""

    return encode_byte(MSG_USERAUTH_PK_OK) + encode_string(algorithm) + encode_string(key_data)


def encode_passwd_changereq(prompt: str, lang: str) -> bytes:
    """Encode a USERAUTH_PASSWD_CHANGEREQ."""

    return encode_byte(MSG_USERAUTH_PASSWD_CHANGEREQ) + encode_string(prompt) + encode_string(lang)


def encode_info_request(challenge: Challenge) -> bytes:
    """Encode a USERAUTH_INFO_REQUEST; raise `ValueError` for more than 100 prompts."""

    name, instructions, lang, prompts = challenge

    if len(prompts) > MAX_PROMPTS:
        raise ValueError(f'Expected at most {MAX_PROMPTS} prompts in a challenge, got {len(prompts)}')

    return b''.join(
        (
            encode_byte(MSG_USERAUTH_INFO_REQUEST),
            encode_string(name),
            encode_string(instructions),
            encode_string(lang),
            encode_uint32(len(prompts)),
            *(encode_string(prompt) + encode_boolean(echo) for prompt, echo in prompts),
        )
    )


def encode_info_response(responses: Sequence[str]) -> bytes:
    """Encode a USERAUTH_INFO_RESPONSE."""

    return b''.join(
        (
            encode_byte(MSG_USERAUTH_INFO_RESPONSE),
            encode_uint32(len(responses)),
            *(encode_string(response) for response in responses),
        )
    )


def decode_prompts(cursor: Cursor, errors: str) -> list[tuple[str, bool]]:
    """Decode the counted prompts that end an INFO_REQUEST."""

    count = cursor.uint32()

    if count > MAX_PROMPTS:
        raise ProtocolError(f'Expected at most {MAX_PROMPTS} prompts, got {count}')

    prompts = [(decode_text(cursor, errors), cursor.boolean()) for _ in range(count)]
    cursor.check_end()

    return prompts


def decode_text(cursor: Cursor, errors: str) -> str:
    """Decode a string as UTF-8; `errors` says what becomes of other bytes, as in `bytes.decode`."""

    if errors == 'strict':
        return cursor.text()

    data = cursor.string()

    try:
        return data.decode(errors=errors)
    except UnicodeDecodeError:
        raise PacketDecodeError(f'Expected a UTF-8 string, got {data[:64]!r}') from None


def displayable(text: str) -> str:
    """Remove what could steer a terminal: every control character but tab, carriage return and newline."""

    return ''.join(char for char in text if char in '\t\r\n' or not (char < ' ' or '\x7f' <= char <= '\x9f'))
