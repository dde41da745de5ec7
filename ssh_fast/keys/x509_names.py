"""X.509 names as text: `O=Example,CN=alice`, in the order in which they are encoded, and patterns of such names."""

from cryptography import x509
from cryptography.x509.oid import NameOID

_TYPES = {
    'C': NameOID.COUNTRY_NAME,
    'ST': NameOID.STATE_OR_PROVINCE_NAME,
    'L': NameOID.LOCALITY_NAME,
    'O': NameOID.ORGANIZATION_NAME,
    'OU': NameOID.ORGANIZATIONAL_UNIT_NAME,
    'CN': NameOID.COMMON_NAME,
    'DC': NameOID.DOMAIN_COMPONENT,
    'UID': NameOID.USER_ID,
    'EMAILADDRESS': NameOID.EMAIL_ADDRESS,
    'SERIALNUMBER': NameOID.SERIAL_NUMBER,
}
_SHOWN = {oid: name for name, oid in _TYPES.items()}


def parse_name(text: str) -> x509.Name:
    """Parse `type=value` pairs between commas; a backslash takes the next character as it is.

    Raises:
      ValueError: a pair is malformed, or its type is not known
    """

    pairs = _pairs(text)

    if not pairs:
        raise ValueError('Expected an X.509 name such as O=Example,CN=alice, got an empty one')

    return x509.Name([x509.NameAttribute(_TYPES[kind], value) for kind, value in pairs])


class X509NamePattern:
    """A whole X.509 name, or its first pairs if the text ends in `,*`; `*` alone is any name."""

    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self._open = pattern == '*' or pattern.endswith(',*')
        self._pairs = _pairs(pattern[:-2] if self._open else pattern)

        if not self._pairs and pattern != '*':
            raise ValueError('Expected a pattern of an X.509 name, got an empty one')

    def __repr__(self) -> str:
        return f'<{type(self).__name__} {self.text!r}>'

    def __eq__(self, other: object) -> bool:
        return isinstance(other, X509NamePattern) and (self._open, self._pairs) == (other._open, other._pairs)

    def __hash__(self) -> int:
        return hash((self._open, tuple(self._pairs)))

    def matches(self, name: x509.Name) -> bool:
        """Tell whether a name has these pairs, in this order, and if the pattern is not open no others."""

        # A pair that cannot be written here equals none of a pattern.
        found = [(_SHOWN.get(part.oid, ''), part.value) for rdn in name.rdns for part in rdn]

        return (found[: len(self._pairs)] if self._open else found) == self._pairs


def _pairs(text: str) -> list[tuple[str, str]]:
    """Take a name apart into types, in capitals, and values."""

    parts = ['']
    escaped = False

    for char in text:
        if escaped or char not in '\\,':
            parts[-1] += char
            escaped = False
        elif char == '\\':
            escaped = True
        else:
            parts.append('')

    if escaped:
        raise ValueError('Expected a character behind the last backslash of an X.509 name')

    pairs = []

    for part in parts if text else ():
        kind, separator, value = part.strip().partition('=')
        kind = kind.strip().upper()

        if not separator or not value or kind not in _TYPES:
            raise ValueError(f'Expected type=value with a type of {", ".join(_TYPES)}, got {part!r}')

        pairs.append((kind, value.strip()))

    return pairs
