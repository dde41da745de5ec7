"""SASLprep (RFC 4013): user names and passwords in the one form in which they can be compared."""

import stringprep
from unicodedata import ucd_3_2_0

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str) -> str:
    """Prepare text as a query string; raise `ValueError` if it holds what RFC 4013 prohibits, as control characters.

    Code points that Unicode 3.2 had not assigned are kept, as section 2.5 allows for queries.
    """

    if text.isascii() and text.isprintable():
        return text

    mapped = ''.join(
        ' ' if stringprep.in_table_c12(char) else char for char in text if not stringprep.in_table_b1(char)
    )
    prepared = ucd_3_2_0.normalize('NFKC', mapped)

    for char in prepared:
        if any(prohibited(char) for prohibited in _PROHIBITED):
            raise ValueError(f'Expected text without prohibited characters, got U+{ord(char):04X}')

    # RFC 3454 section 6: right-to-left text holds no left-to-right letter, and begins and ends right-to-left
    if any(stringprep.in_table_d1(char) for char in prepared):
        if any(stringprep.in_table_d2(char) for char in prepared):
            raise ValueError('Expected text of one direction, got left-to-right and right-to-left letters')

        if not (stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])):
            raise ValueError('Expected right-to-left text to begin and end with right-to-left letters')

    return prepared
