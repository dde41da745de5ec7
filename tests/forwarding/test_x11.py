"""Codecs and files of X11 forwarding: the first message of clients, names of displays, Xauthority files."""

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssh_fast.channel.x11_channel import X11Request
from ssh_fast.errors import ChannelListenError, PacketDecodeError
from ssh_fast.forwarding import x11_auth, x11_display
from ssh_fast.forwarding.x11_auth import (
    FAMILY_INTERNET,
    FAMILY_LOCAL,
    FAMILY_WILD,
    MIT_MAGIC_COOKIE,
    XauthorityEntry,
    XauthorityError,
    add_entry,
    find_cookie,
    local_entry,
    read_entries,
    remove_entry,
)
from ssh_fast.forwarding.x11_display import X11Display, bind_display
from ssh_fast.forwarding.x11_setup import MAX_DATA, MAX_NAME, MAX_SIZE, X11Setup
from ssh_fast.wire import Cursor, encode_boolean, encode_string, encode_uint32

# --- the first message of a client

setups = st.builds(
    X11Setup,
    st.sampled_from([b'B', b'l']),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.binary(max_size=MAX_NAME),
    st.binary(max_size=MAX_DATA),
)


@given(setups, st.binary(max_size=20), st.data())
def test_what_was_written_is_read_and_nothing_before_it_is_whole(setup, behind, data):
    message = setup.encode()
    assert len(message) <= MAX_SIZE and len(message) % 4 == 0
    assert X11Setup.parse(message + behind) == (setup, len(message))
    assert X11Setup.parse(message[: data.draw(st.integers(0, len(message) - 1))]) is None


@given(st.binary(min_size=1, max_size=64) | st.binary(min_size=MAX_SIZE, max_size=MAX_SIZE + 64))
def test_any_bytes_are_a_message_or_an_error_or_too_short(received):
    try:
        parsed = X11Setup.parse(received)
    except PacketDecodeError as exc:
        assert 'Expected' in str(exc)
    else:
        assert parsed is not None or len(received) < MAX_SIZE, 'as many bytes as a message may have are enough'


@pytest.mark.parametrize(('order', 'sign'), [(b'B', '>'), (b'l', '<')])
def test_the_message_is_what_the_protocol_says(order, sign):
    message = order + b'\0' + pack(f'{sign}HHHH', 11, 0, 18, 16) + bytes(2) + MIT_MAGIC_COOKIE + bytes(2) + b'c' * 16
    setup, size = X11Setup.parse(message)
    assert setup == X11Setup(order, 11, 0, MIT_MAGIC_COOKIE, b'c' * 16) and size == len(message) == 48
    assert setup.encode() == message
    # Failed, length of the reason, version, length of what follows in units of 4 bytes
    assert setup.refusal(b'no no') == b'\0\5' + pack(f'{sign}HHH', 11, 0, 2) + b'no no\0\0\0'


@pytest.mark.parametrize(('name', 'data'), [(MAX_NAME + 1, 0), (0, MAX_DATA + 1), (0xFFFF, 0xFFFF)])
def test_a_message_that_would_be_long_is_refused_by_its_head(name, data):
    with pytest.raises(PacketDecodeError, match='at most'):
        X11Setup.parse(b'l\0' + pack('<HHHH', 11, 0, name, data) + bytes(2))


# --- what a session asks for

requests = st.builds(
    X11Request,
    st.booleans(),
    st.from_regex(rb'[A-Za-z0-9_-]{1,64}', fullmatch=True),
    st.binary(min_size=1, max_size=256),
    st.integers(0, 0xFFFFFFFF),
)


@given(requests)
def test_requests_are_read_as_they_were_written(request):
    assert X11Request.decode(Cursor(b''.join(request.encode()))) == request


@given(st.booleans(), st.binary(max_size=80), st.binary(max_size=600), st.integers(0, 0xFFFFFFFF))
def test_a_request_is_taken_only_if_an_entry_can_be_made_of_it(single, protocol, digits, screen):
    fields = encode_boolean(single), encode_string(protocol), encode_string(digits), encode_uint32(screen)
    request = X11Request.decode(Cursor(b''.join(fields)))
    if request:
        assert request.protocol == protocol and request.cookie.hex().encode() == digits.lower()
        assert protocol.replace(b'-', b'').replace(b'_', b'').isalnum() and len(protocol) <= 64


# --- names of displays


@pytest.mark.parametrize(
    ('name', 'display'),
    [
        (':0', ('/tmp/.X11-unix/X0', '', 0, 0)),
        ('unix:12.3', ('/tmp/.X11-unix/X12', '', 12, 3)),
        ('localhost:10.0', ('', 'localhost', 10, 0)),
        ('127.0.0.1:1', ('', '127.0.0.1', 1, 0)),
        ('::1:10', ('', '::1', 10, 0)),
        ('[::1]:10.1', ('', '::1', 10, 1)),
        ('/private/tmp/x.Y/org.xquartz:0', ('/private/tmp/x.Y/org.xquartz:0', '', 0, 0)),
    ],
)
def test_names_of_displays(name, display):
    assert X11Display.parse(name) == display


@pytest.mark.parametrize(
    'name', ['', ':', 'host', ':x', ':0.', ':0.x', ':-1', ':59536', ':99999999999', 'a\0b:0', ':0\n']
)
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match='expected a display'):
        X11Display.parse(name)


@given(st.text(max_size=30))
def test_any_text_is_a_display_or_a_value_error(name):
    with contextlib.suppress(ValueError):
        assert 0 <= X11Display.parse(name).number <= 59535


def test_displays_are_bound_one_after_another_and_run_out(monkeypatch):
    first, sockets = bind_display()
    try:
        second, others = bind_display()
        for sock in others:
            sock.close()
        assert first >= x11_display.FIRST_DISPLAY and second > first
        assert all(sock.getsockname()[:2] in (('127.0.0.1', 6000 + first), ('::1', 6000 + first)) for sock in sockets)
        monkeypatch.setattr(x11_display, 'FIRST_DISPLAY', first)
        monkeypatch.setattr(x11_display, 'LAST_DISPLAY', first)
        with pytest.raises(ChannelListenError, match='is free'):
            bind_display()
    finally:
        for sock in sockets:
            sock.close()


def test_a_number_that_is_taken_in_one_family_is_left(monkeypatch):
    with socket.socket(socket.AF_INET6) as other:
        try:
            other.bind(('::1', 0))
        except OSError:
            pytest.skip('this machine has no ::1')
        other.listen()
        number = other.getsockname()[1] - 6000
        monkeypatch.setattr(x11_display, 'FIRST_DISPLAY', number)
        monkeypatch.setattr(x11_display, 'LAST_DISPLAY', number)
        with pytest.raises(ChannelListenError):
            bind_display()


# --- Xauthority files

fields = st.binary(max_size=40)
entries_of_files = st.lists(
    st.builds(XauthorityEntry, st.integers(0, 0xFFFF), fields, fields, fields, fields), max_size=5
)


@given(entries_of_files, st.data())
def test_files_that_were_written_are_read(tmp_path_factory, entries, data):
    path = tmp_path_factory.getbasetemp() / 'Xauthority-codec'
    content = b''.join(entry.encode() for entry in entries)
    path.write_bytes(content)
    assert read_entries(str(path)) == entries
    # A file that is cut within an entry is an error, not a shorter file.
    ends = {sum(len(entry.encode()) for entry in entries[:count]) for count in range(len(entries) + 1)}
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    if cut in ends:
        assert b''.join(entry.encode() for entry in read_entries(str(path))) == content[:cut]
    else:
        with pytest.raises(XauthorityError, match='Xauthority-codec: '):
            read_entries(str(path))


def test_which_cookie_opens_a_display():
    def entry(family, address, number, data, name=MIT_MAGIC_COOKIE):
        return XauthorityEntry(family, address, number, name, data)

    local = [(FAMILY_LOCAL, b'me')]
    entries = [
        entry(FAMILY_LOCAL, b'other', b'1', b'another host'),
        entry(FAMILY_INTERNET, b'me', b'1', b'another family'),
        entry(FAMILY_LOCAL, b'me', b'2', b'another number'),
        entry(FAMILY_LOCAL, b'me', b'1', b'another protocol', b'XDM-AUTHORIZATION-1'),
        entry(FAMILY_LOCAL, b'me', b'1', b'this'),
        entry(FAMILY_WILD, b'', b'', b'for all'),
    ]
    assert find_cookie(entries, local, 1) == b'this'
    assert find_cookie(entries, local, 7) == b'for all'
    assert find_cookie(entries[:-1], local, 7) is None
    assert find_cookie([entry(FAMILY_LOCAL, b'me', b'', b'any number')], local, 7) == b'any number'


def test_a_display_at_a_loopback_address_is_one_of_this_host(tmp_path):
    path = str(tmp_path / 'Xauthority')
    add_entry(path, local_entry(10, MIT_MAGIC_COOKIE, b'c' * 16))
    for name in (':10', 'unix:10', 'localhost:10', '127.0.0.1:10.0'):
        assert X11Display.parse(name).find_cookie(path) == b'c' * 16
    assert X11Display.parse(':11').find_cookie(path) is None
    assert X11Display.parse('192.0.2.1:10').find_cookie(path) is None


def test_entries_are_added_replaced_and_removed(tmp_path):
    path = tmp_path / 'Xauthority'
    first, second = local_entry(10, b'A', b'1'), local_entry(11, b'A', b'2')
    add_entry(str(path), first)
    assert path.stat().st_mode & 0o777 == 0o600
    add_entry(str(path), second)
    add_entry(str(path), first._replace(data=b'3'))
    assert read_entries(str(path)) == [second, first._replace(data=b'3')]
    remove_entry(str(path), first)
    assert len(read_entries(str(path))) == 2, 'what somebody else put in its place stays'
    remove_entry(str(path), first._replace(data=b'3'))
    remove_entry(str(path), second)
    assert path.read_bytes() == b'' and os.listdir(tmp_path) == ['Xauthority']


def test_a_file_that_is_broken_too_long_or_unreadable_is_left_as_it_is(tmp_path):
    path = tmp_path / 'Xauthority'
    for content, what in ((b'\1\0\0\7', 'Expected'), (bytes(x11_auth._MAX_FILE + 10), 'at most')):
        path.write_bytes(content)
        with pytest.raises(XauthorityError, match=what):
            add_entry(str(path), local_entry(10, b'A', b'1'))
        assert path.read_bytes() == content and os.listdir(tmp_path) == ['Xauthority']
    with pytest.raises(XauthorityError, match='cannot be locked'):
        add_entry(str(tmp_path / 'no/folder'), local_entry(10, b'A', b'1'))
    with pytest.raises(XauthorityError, match='cannot be read'):
        read_entries(str(tmp_path))


def test_many_who_change_a_file_at_once_lose_nothing(tmp_path):
    """Our writers and xauth's, in turn by the same lock."""
    path = tmp_path / 'Xauthority'
    program = shutil.which('xauth')

    def change(number: int) -> None:
        if program and number % 4 == 0:
            command = [program, '-q', '-f', str(path), 'add', f'192.0.2.{number}:7', 'A', '00']
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        else:
            add_entry(str(path), local_entry(number, b'A', b'1'))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, range(1, 25)))
    assert len({entry.opens for entry in read_entries(str(path))}) == 24
    assert os.listdir(tmp_path) == ['Xauthority']


def test_the_lock_is_waited_for(tmp_path, monkeypatch):
    path = tmp_path / 'Xauthority'
    lock, link = tmp_path / 'Xauthority-c', tmp_path / 'Xauthority-l'
    lock.touch()
    link.hardlink_to(lock)
    releasing = threading.Timer(0.1, lambda: (lock.unlink(), link.unlink()))
    releasing.start()
    add_entry(str(path), local_entry(10, b'A', b'1'))
    releasing.join()
    assert len(read_entries(str(path))) == 1

    monkeypatch.setattr(x11_auth, '_LOCK_TIMEOUT', 0.05)
    link.touch()
    with pytest.raises(XauthorityError, match='held by another program'):
        add_entry(str(path), local_entry(11, b'A', b'1'))
    assert sorted(os.listdir(tmp_path)) == ['Xauthority', 'Xauthority-l'], 'our half of a lock is taken back'
    link.unlink()
    lock.touch()
    with pytest.raises(XauthorityError, match='held by another program'):
        add_entry(str(path), local_entry(11, b'A', b'1'))
    assert lock.exists(), 'the half of somebody else is left'


def test_a_lock_that_was_left_behind_is_broken(tmp_path, monkeypatch):
    path = tmp_path / 'Xauthority'
    for name in ('Xauthority-c', 'Xauthority-l'):
        (tmp_path / name).touch()
    now = time.time()
    monkeypatch.setattr(x11_auth.time, 'time', lambda: now + 601)
    add_entry(str(path), local_entry(10, b'A', b'1'))
    assert os.listdir(tmp_path) == ['Xauthority']


@pytest.mark.skipif(not shutil.which('xauth'), reason='xauth is not installed (Debian: apt-get install xauth)')
def test_xauth_reads_what_we_write_and_the_other_way_round(tmp_path):
    path = tmp_path / 'Xauthority'
    add_entry(str(path), local_entry(10, MIT_MAGIC_COOKIE, bytes(range(16))))

    def xauth(*arguments):
        command = ['xauth', '-q', '-f', str(path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, timeout=60, text=True).stdout

    assert xauth('list').split()[1:] == ['MIT-MAGIC-COOKIE-1', bytes(range(16)).hex()]
    assert '/unix:10 ' in xauth('list')
    xauth('add', ':11', '.', 'ff' * 16)
    xauth('add', '192.0.2.1:0', '.', 'ee' * 16)
    assert read_entries(str(path))[1] == local_entry(11, MIT_MAGIC_COOKIE, b'\xff' * 16)
    assert read_entries(str(path))[2] == (FAMILY_INTERNET, b'\xc0\0\2\1', b'0', MIT_MAGIC_COOKIE, b'\xee' * 16)
