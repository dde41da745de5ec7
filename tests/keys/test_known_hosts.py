"""known_hosts: names, ports, hashes, markers, malformed lines, forms of the option."""

import hmac
import os
import subprocess
import time
from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssh_fast.errors import KeyImportError
from ssh_fast.keys import known_hosts as known_hosts_module
from ssh_fast.keys.key import generate_private_key
from ssh_fast.keys.known_hosts import (
    SSHKnownHosts,
    import_known_hosts,
    match_known_hosts,
    read_known_hosts,
)
from ssh_fast.keys.known_hosts_file import add_known_host, known_hosts_line, replace_known_host

KEYS = [generate_private_key('ssh-ed25519').convert_to_public() for _ in range(4)]
LINES = [key.export_public_key().decode().strip() for key in KEYS]
NOTHING = ([], [], [], [], [], [], [])


def host_keys(text, host, addr='', port=22):
    return import_known_hosts(text).match(host, addr, port)[0]


def test_plain_names():
    text = f'# a comment\n\nhost1,1.2.3.4 {LINES[0]} the comment\nHOST2 {LINES[1]}\r\n\thost1\t{LINES[2]}'

    assert host_keys(text, 'host1') == [KEYS[0], KEYS[2]]
    assert host_keys(text, 'host1', '1.2.3.4') == [KEYS[0], KEYS[2]]
    assert host_keys(text, 'other', '1.2.3.4') == [KEYS[0]]
    assert host_keys(text, 'Host2') == [KEYS[1]]
    assert host_keys(text, 'host', '1.2.3') == []
    assert import_known_hosts('').match('host', '', 22) == NOTHING


def test_patterns_and_negation():
    text = f'*.example.com,!bad.example.com {LINES[0]}\n10.0.0.0/8 {LINES[1]}\n?ost {LINES[2]}'

    assert host_keys(text, 'a.example.com') == [KEYS[0]]
    assert host_keys(text, 'bad.example.com') == []
    assert host_keys(text, 'other', '10.1.2.3') == [KEYS[1]]
    assert host_keys(text, 'host', '10.1.2.3') == [KEYS[1], KEYS[2]]


def test_ports():
    text = f'host {LINES[0]}\n[host]:2222 {LINES[1]}\n[1.2.3.4]:2222 {LINES[2]}\n[*.com]:2022 {LINES[3]}'

    assert host_keys(text, 'host', '1.2.3.4', 22) == [KEYS[0]]
    assert host_keys(text, 'host', '1.2.3.4', None) == [KEYS[0]]
    assert host_keys(text, 'host', '1.2.3.4', 2222) == [KEYS[1], KEYS[2]]
    assert host_keys(text, 'host', '', 2223) == [KEYS[0]]
    assert host_keys(text, 'a.com', '', 2022) == [KEYS[3]]
    assert host_keys(text, 'a.com', '', 22) == []


def test_a_key_revoked_without_a_port_is_revoked_on_all():
    text = f'@revoked host {LINES[0]}\n[host]:2222 {LINES[0]}\n[host]:2222 {LINES[1]}'
    trusted, _, revoked, *_ = import_known_hosts(text).match('host', '', 2222)

    assert trusted == [KEYS[0], KEYS[1]]
    assert revoked == [KEYS[0]]


def test_addresses_have_one_spelling():
    text = f'2001:DB8:0::1 {LINES[0]}\n[2001:db8::2]:2222 {LINES[1]}\n1.2.3.4 {LINES[2]}'

    assert host_keys(text, '2001:db8::1') == [KEYS[0]]
    assert host_keys(text, '2001:0db8::2', '', 2222) == [KEYS[1]]
    assert host_keys(text, 'host', '::ffff:1.2.3.4') == [KEYS[2]]


def test_hosts_hashed_by_ssh_keygen(tmp_path):
    path = tmp_path / 'known_hosts'
    path.write_text(f'host,1.2.3.4 {LINES[0]}\n[host]:2222 {LINES[1]}\n*.com {LINES[2]}\n')
    path.chmod(0o600)
    subprocess.run(['ssh-keygen', '-H', '-f', path], check=True, capture_output=True)
    text = path.read_text()
    assert '1.2.3.4' not in text

    assert host_keys(text, 'host') == [KEYS[0]]
    assert host_keys(text, 'HOST', '1.2.3.4') == [KEYS[0]]
    assert host_keys(text, 'x', '1.2.3.4') == [KEYS[0]]
    assert host_keys(text, 'host', '1.2.3.4', 2222) == [KEYS[1]]
    assert host_keys(text, 'host2') == []
    assert host_keys(text, 'a.com') == [KEYS[2]]


def test_markers():
    text = f'@revoked * {LINES[0]}\n@cert-authority *.com {LINES[1]}\n* {LINES[2]}\n'

    assert import_known_hosts(text).match('a.com', '', 22) == ([KEYS[2]], [KEYS[1]], [KEYS[0]], [], [], [], [])
    assert import_known_hosts(text).match('a.org', '', 22) == ([KEYS[2]], [], [KEYS[0]], [], [], [], [])


MALFORMED = [
    'host',
    'host ssh-ed25519',
    'host ssh-ed25519 AAAA',
    'host ssh-ed25519 !!!!',
    f'host ssh-rsa {LINES[0].split()[1]}',
    f'host {LINES[0][:-8]}',
    f'host,, {LINES[0]}',
    f'1.2.3.4/8 {LINES[0]}',
    f'@other host {LINES[0]}',
    f'|1|AAAA {LINES[0]}',
    f'|1|AAAA|AAAA {LINES[0]}',
    f'|1|A|{"A" * 28} {LINES[0]}',
    f'|2|AAAA|AAAA= {LINES[0]}'.replace('|2|', '|1|'),
    '@revoked',
]


@pytest.mark.parametrize('line', MALFORMED[:-1])
def test_malformed_lines_are_logged_and_skipped(line, caplog, tmp_path):
    path = tmp_path / 'hosts'
    path.write_text(f'# first\n{line}\nhost {LINES[1]}\n')

    assert read_known_hosts(path).match('host', '', 22)[0] == [KEYS[1]]
    assert f'{path}:2: ' in caplog.text


@pytest.mark.parametrize('line', [line for line in MALFORMED if not line.startswith('@other')])
def test_malformed_revoked_lines_raise(line):
    with pytest.raises(KeyImportError, match=r'known_hosts:1: '):
        import_known_hosts(line if line.startswith('@') else f'@revoked {line}')


def test_keys_that_no_peer_can_use_are_skipped(caplog):
    dss = 'ssh-xyz AAAAB3NzaC14eXoAAAAB'
    known = import_known_hosts(f'host {dss}\n@revoked host {dss}\nhost {LINES[0]}')

    assert known.match('host', '', 22) == ([KEYS[0]], [], [], [], [], [], [])
    assert not caplog.records


def test_log_lines_hold_no_control_characters(caplog):
    import_known_hosts(f'@oth\x1b[31mer host {LINES[0]}')
    assert caplog.records
    assert '\x1b' not in caplog.text


def test_forms_of_the_option(tmp_path):
    path, other = tmp_path / 'known_hosts', tmp_path / 'more'
    path.write_text(f'host {LINES[0]}\n')
    other.write_text(f'@revoked host {LINES[1]}\n')
    expected = ([KEYS[0]], [], [], [], [], [], [])

    for known in (
        str(path),
        path,
        path.read_bytes(),
        import_known_hosts(path.read_text()),
        read_known_hosts([path]),
        [str(path)],
        ([KEYS[0]], [], []),
        [[LINES[0].encode()], [], [], [], [], [], []],
        lambda host, addr, port: ([KEYS[0]] if host == 'host' else [], [], []),
        lambda host, addr, port: path.read_bytes(),
    ):
        assert match_known_hosts(known, 'host', '1.2.3.4', 22) == expected

    assert match_known_hosts([path, other], 'host', '', 22) == ([KEYS[0]], [], [KEYS[1]], [], [], [], [])
    assert match_known_hosts([], 'host', '', 22) == NOTHING

    for bad in (None, ([], []), ([], [], [], [KEYS[0]], [], [], [])):
        with pytest.raises(ValueError, match='xpected'):
            match_known_hosts(bad, 'host', '', 22)

    with pytest.raises(FileNotFoundError):
        match_known_hosts(tmp_path / 'missing', 'host', '', 22)


def test_parsed_files_are_remembered_until_they_change(tmp_path):
    path = tmp_path / 'known_hosts'
    path.write_text(f'host {LINES[0]}\n')
    os.utime(path, (1e9, 1e9))
    known = read_known_hosts(path)
    assert read_known_hosts(str(path)) is known

    time.sleep(0.05)  # longer than a tick of the file system's clock
    path.write_text(f'host {LINES[1]}\n')
    os.utime(path, (1e9, 1e9))
    assert read_known_hosts(path).match('host', '', 22)[0] == [KEYS[1]]


def test_a_big_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(known_hosts_module, 'MAX_FILE_SIZE', 100)
    (tmp_path / 'known_hosts').write_text('#' * 101)

    with pytest.raises(ValueError, match='known_hosts: expected a file'):
        read_known_hosts(tmp_path / 'known_hosts')


def test_keys_of_other_hosts_are_not_decoded(monkeypatch):
    known = import_known_hosts(''.join(f'host{number} {LINES[number % 4]}\n' for number in range(2000)))
    decoded = []
    decode = known_hosts_module.decode_public_key
    monkeypatch.setattr(known_hosts_module, 'decode_public_key', lambda blob: decoded.append(blob) or decode(blob))

    assert known.match('host7', '', 22)[0] == [KEYS[3]]
    assert known.match('host7', '', 22)[0] == [KEYS[3]]
    assert len(decoded) == 1


SAMPLE = f'host,!*.a,[b]:22 {LINES[0]} c\n@cert-authority *.com {LINES[1]}\n@revoked x {LINES[2]}\n|1|AAAAAAAAAAAAAAAAAAAAAAAAAAA=|AAAAAAAAAAAAAAAAAAAAAAAAAAA= {LINES[3]}\n'  # fmt: skip # noqa: E501


@settings(max_examples=300, deadline=1000)
@given(st.data())
def test_mutated_files(data):
    text = list(SAMPLE)

    for _ in range(data.draw(st.integers(1, 6))):
        pos = data.draw(st.integers(0, len(text) - 1))
        text[pos : pos + data.draw(st.integers(0, 3))] = data.draw(st.text('aA|1!*?,[]/:@# \t\n\r\0\xe9', max_size=3))

        if not text:
            break

    start = time.monotonic()

    try:
        known = SSHKnownHosts(''.join(text))
        assert len(known.match('host', '1.2.3.4', 2222)) == 7
        assert known.match('a.com', '', 22)[0] == [] or '*' in ''.join(text)
    except KeyImportError as exc:
        assert 'revoked' in str(exc)

    assert time.monotonic() - start < 1


# --- the index


def slow_match(lines, host, addr):
    """Match each line by itself, without any index."""
    return [key for text in lines for key in import_known_hosts(text).match(host, addr, 22)[0]]


names = st.sampled_from(['a', 'b.a', 'c.b.a', 'xa', '', '10.0.0.1', '10.0.0.2', '::1', 'b'])
patterns = st.lists(
    st.builds(
        lambda negated, text: '!' * negated + text,
        st.booleans(),
        st.text('ab.*?', min_size=1, max_size=5) | st.sampled_from(['10.0.0.0/30', '::/64', '*', '10.0.0.?', '[a]:22']),
    ),
    min_size=1,
    max_size=4,
).map(','.join)


@settings(max_examples=150)
@given(st.lists(patterns, max_size=len(LINES)), names, names)
def test_the_index_finds_what_each_line_matches(pattern_lists, host, addr):
    lines = [f'{text} {line}' for text, line in zip(pattern_lists, LINES, strict=False)]
    expected = slow_match(lines, host, addr)
    assert import_known_hosts('\n'.join(lines)).match(host, addr, 22)[0] == expected


def test_many_hosts_are_looked_up_without_trying_each(monkeypatch):
    """Counted, not timed: how many patterns are matched, and how many names hashed."""
    blob = LINES[0].split()[1]
    text = ''.join(f'h{i}.example.com,10.0.{i >> 8}.{i & 255} ssh-ed25519 {blob}\n' for i in range(10_000))
    text += ''.join(f'*.net{i}.example.com ssh-ed25519 {blob}\n' for i in range(10_000))
    known = import_known_hosts(text)
    matched = []
    original = known_hosts_module.HostPatternList.matches
    monkeypatch.setattr(
        known_hosts_module.HostPatternList, 'matches', lambda *args: matched.append(1) or original(*args)
    )
    for host in ('h9999.example.com', 'x.net9999.example.com', 'nowhere'):
        assert bool(known.match(host, '10.9.9.9', 22)[0]) is (host != 'nowhere')
    assert len(matched) <= 2


def test_hashed_names_are_hashed_once(monkeypatch):
    hashed = []
    original = known_hosts_module.hash_name
    monkeypatch.setattr(known_hosts_module, 'hash_name', lambda *args: hashed.append(1) or original(*args))
    salt = b'salt' * 5
    name = f'|1|{b64encode(salt).decode()}|{b64encode(original(salt, b"host")).decode()}'
    known = import_known_hosts(''.join(f'{name} {line}\n' for line in LINES))
    for _ in range(3):
        assert len(known.match('host', '', 22)[0]) == len(LINES) and known.match('other', '', 22)[0] == []
    assert len(hashed) == 2 * len(LINES)
    known.load(f'other {LINES[0]}\n{name} {LINES[0]}')
    assert known.match('other', '', 22)[0] == [KEYS[0]]
    assert hmac.digest(salt, b'host', 'sha1') == original(salt, b'host') and original(b's' * 64, b'') == hmac.digest(
        b's' * 64, b'', 'sha1'
    )


# --- writing


def test_lines_that_are_written():
    assert known_hosts_line('Host', 22, KEYS[0]) == f'host {" ".join(LINES[0].split()[:2])}\n'
    assert known_hosts_line('0::1', 2222, KEYS[0]).startswith('[::1]:2222 ssh-ed25519 ')
    assert host_keys(known_hosts_line('host', 2222, KEYS[0], True), 'host', '', 2222) == [KEYS[0]]
    for wrong in ('', 'a b', 'a,b', '*', 'a?', '!a', 'a\n', '#a', 'a\0', 'a\t'):
        with pytest.raises(ValueError, match='host name'):
            known_hosts_line(wrong, 22, KEYS[0])


def test_hosts_are_appended(tmp_path):
    path = tmp_path / 'folder' / 'known'
    add_known_host(path, 'a', 22, KEYS[:1])
    path.write_text(path.read_text()[:-1])
    add_known_host(path, 'b', 22, KEYS[1:3])
    assert [line.split()[0] for line in path.read_text().splitlines()] == ['a', 'b', 'b']
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert host_keys(path.read_text(), 'b') == KEYS[1:3]


def test_hosts_are_replaced_in_one_step(tmp_path, monkeypatch):
    path, link = tmp_path / 'known', tmp_path / 'link'
    mine = f'host,Other {LINES[0]}\n@revoked host {LINES[0]}\n# host {LINES[0]}\nho?t {LINES[0]}\n[host]:1 {LINES[0]}\n'
    hashed = known_hosts_line('host', 22, KEYS[0], True)
    path.write_text(f'host {LINES[0]} comment\n{mine}{hashed}host {LINES[1]}\n\n')
    path.chmod(0o640)
    link.symlink_to(path)
    replace_known_host(link, 'HOST', 22, [KEYS[2]], [KEYS[0]])
    expected = f'{mine.replace("host,Other", "Other", 1)}host {LINES[1]}\n{known_hosts_line("host", 22, KEYS[2])}'
    assert path.read_text() == expected and link.is_symlink() and path.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ['known', 'link']

    def no_space(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', no_space)
    with pytest.raises(OSError, match='No space'):
        replace_known_host(path, 'host', 22, [KEYS[3]], [KEYS[1]])
    assert path.read_text() == expected and sorted(os.listdir(tmp_path)) == ['known', 'link']
    with pytest.raises(FileNotFoundError):
        replace_known_host(tmp_path / 'missing', 'host', 22, [KEYS[3]], [])
