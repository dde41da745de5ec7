"""The identification lines: what is made, what is accepted, and every limit."""

import pytest

from ssh_fast.errors import ProtocolError, ProtocolNotSupported
from ssh_fast.transport.version_line import VersionReader, make_version_line
from tests.memory_pipe import End, byte_by_byte, make_pipe, options


def test_our_line() -> None:
    assert make_version_line(b'ssh_fast_1.0') == b'SSH-2.0-ssh_fast_1.0'
    assert make_version_line(b'ssh_fast a comment - with a dash') == b'SSH-2.0-ssh_fast a comment - with a dash'
    assert len(make_version_line(b'x' * 245)) == 253


@pytest.mark.parametrize('software', [b'', b' x', b'a-b', b'a\nb', b'a\0b', b'caf\xc3\xa9', b'x' * 246])
def test_our_line_refused(software: bytes) -> None:
    with pytest.raises(ValueError, match='version'):
        make_version_line(software)


@pytest.mark.parametrize(
    'line', [b'SSH-2.0-x', b'SSH-2.0-OpenSSH_9.2p1 Debian-2', b'SSH-2.0-' + b'x' * 245, b'SSH-2.0-']
)
def test_accepted(line: bytes) -> None:
    for is_client in (True, False):
        assert VersionReader(is_client=is_client).line_received(line) == line


def test_1_99_is_for_servers_only() -> None:
    assert VersionReader(is_client=True).line_received(b'SSH-1.99-x') == b'SSH-1.99-x'
    with pytest.raises(ProtocolNotSupported):
        VersionReader(is_client=False).line_received(b'SSH-1.99-x')


@pytest.mark.parametrize('line', [b'SSH-1.5-x', b'SSH-3.0-x', b'SSH-2.1-x', b'SSH-', b'SSH-2.0'])
def test_other_versions(line: bytes) -> None:
    for is_client in (True, False):
        with pytest.raises(ProtocolNotSupported, match=r'2\.0'):
            VersionReader(is_client=is_client).line_received(line)


@pytest.mark.parametrize('line', [b'SSH-2.0-' + b'x' * 246, b'SSH-2.0-a\0b', b'SSH-2.0-a\x1b[2Jb', b'SSH-2.0-a\rb'])
def test_bad_lines(line: bytes) -> None:
    for is_client in (True, False):
        with pytest.raises(ProtocolError) as caught:
            VersionReader(is_client=is_client).line_received(line)
        assert '\x1b' not in str(caught.value)


def test_lines_before_it() -> None:
    reader = VersionReader(is_client=True)
    for _ in range(1024):
        assert reader.line_received(b'Welcome') is None
    assert reader.line_received(b'SSH-2.0-x') == b'SSH-2.0-x'

    reader = VersionReader(is_client=True)
    for _ in range(1024):
        reader.line_received(b'')
    with pytest.raises(ProtocolNotSupported, match='1024'):
        reader.line_received(b'\x1b]0;title\x07')

    with pytest.raises(ProtocolNotSupported):
        VersionReader(is_client=False).line_received(b'Welcome')


def test_http_client_is_refused_at_once() -> None:
    end = End(options(), is_client=False)
    end.transport.start()
    end.take()
    end.feed(b'GET / HTTP/1.1\r\n')
    assert isinstance(end.error, ProtocolNotSupported)
    assert end.take() == b'', 'a peer of another protocol gets no packets'


def test_line_without_end_is_bounded() -> None:
    end = End(options(), is_client=True)
    end.transport.start()
    for _ in range(64):
        end.feed(b'x' * 1024)
    assert isinstance(end.error, ProtocolError)


def test_banner_lines_byte_by_byte_and_bare_lf() -> None:
    pipe = make_pipe(byte_by_byte)
    pipe.client.feed(b'Hello\r\nthere\n', byte_by_byte)
    pipe.start().check()
    assert pipe.client.transport.server_version == pipe.server.transport.server_version == b'SSH-2.0-ssh_fast'

    end = End(options(), is_client=True)
    end.feed(b'SSH-2.0-bare\n')
    assert end.transport.server_version == b'SSH-2.0-bare'


def test_lines_before_the_identification_are_text() -> None:
    reader = VersionReader(is_client=True)
    assert reader.line_received(b'caf\xc3\xa9, be welcome\x1b[0m') is None
    with pytest.raises(ProtocolNotSupported, match='lines of text'):
        reader.line_received(b'\0\0\0\x0c\x0a\x14')
