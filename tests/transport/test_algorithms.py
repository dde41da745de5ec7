"""The option syntax of algorithms, and the default offers."""

import pytest

from ssh_fast._cipher import CIPHER_SUITES, MAC_SUITES
from ssh_fast.transport import algorithms
from ssh_fast.transport.algorithms import (
    available_algorithms,
    hardened_algorithms,
    known_algorithms,
    legacy_algorithms,
    select_algorithms,
)
from ssh_fast.transport.kex import KEX_METHODS

KINDS = ('kex', 'encryption', 'mac', 'compression', 'host_key', 'signature')
MACS = available_algorithms('mac')


def test_everything_offered_exists() -> None:
    assert set(known_algorithms('kex')) == set(KEX_METHODS)
    assert set(available_algorithms('encryption')) <= set(CIPHER_SUITES)
    assert set(MACS) <= set(MAC_SUITES)
    assert available_algorithms('compression') == (b'none', b'zlib@openssh.com')
    assert available_algorithms('kex')[0] == b'mlkem768x25519-sha256'
    assert b'none' not in available_algorithms('encryption')


@pytest.mark.parametrize('has_aes', [True, False])
def test_cipher_order_follows_the_processor(monkeypatch: pytest.MonkeyPatch, has_aes: bool) -> None:
    monkeypatch.setattr(algorithms, '_cpu_has_aes', lambda: has_aes)
    names = available_algorithms.__wrapped__('encryption')
    assert names[0] == (b'aes128-gcm@openssh.com' if has_aes else b'chacha20-poly1305@openssh.com')
    assert len(names) == 6


def test_processor_flags(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    info = tmp_path / 'cpuinfo'
    monkeypatch.setattr(algorithms, '_CPUINFO', str(info))
    detect = algorithms._cpu_has_aes.__wrapped__
    for text, expected in [
        ('processor\t: 0\nflags\t\t: fpu aes avx\n', True),
        ('processor\t: 0\nflags\t\t: fpu avx\n', False),
        ('Features\t: fp asimd aes sha1\n', True),
        ('Features\t: half thumb\n', False),
    ]:
        info.write_text(text)
        assert detect() is expected
    info.unlink()
    monkeypatch.setattr(algorithms.platform, 'machine', lambda: 'arm64')
    assert detect() is True
    monkeypatch.setattr(algorithms.platform, 'machine', lambda: 'riscv64')
    assert detect() is False


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('value', ['default', ['default']])
def test_default(kind: str, value: object) -> None:
    assert select_algorithms(kind, value, 'x') == available_algorithms(kind)


@pytest.mark.parametrize('value', [None, (), [], ''])
def test_nothing_wanted(value: object) -> None:
    assert select_algorithms('compression', value, 'x') == (b'none',)
    assert select_algorithms('mac', value, 'x') == ()

    for kind in ('kex', 'encryption', 'host_key', 'signature'):
        with pytest.raises(ValueError, match='^x: expected at least one algorithm'):
            select_algorithms(kind, value, 'x')


def test_lists_and_strings() -> None:
    wanted = (b'hmac-sha1', b'hmac-sha2-256')
    assert select_algorithms('mac', ['hmac-sha1', 'hmac-sha2-256'], 'mac_algs') == wanted
    assert select_algorithms('mac', 'hmac-sha1,hmac-sha2-256', 'mac_algs') == wanted
    assert select_algorithms('mac', 'hmac-sha1, hmac-sha2-256,hmac-sha1', 'mac_algs') == wanted


def test_wildcards() -> None:
    assert select_algorithms('mac', '*-etm@openssh.com', 'mac_algs') == MACS[:3]
    assert select_algorithms('mac', ['hmac-sha?'], 'mac_algs') == (b'hmac-sha1',)
    others = tuple(name for name in MACS if name != b'hmac-sha1')
    assert select_algorithms('mac', 'hmac-sha1,*', 'mac_algs') == (b'hmac-sha1', *others)


def test_prefixes() -> None:
    assert select_algorithms('mac', '-*-etm@openssh.com', 'mac_algs') == MACS[3:]
    assert select_algorithms('mac', '^hmac-sha1', 'mac_algs')[:2] == (b'hmac-sha1', MACS[0])
    assert len(select_algorithms('mac', '^hmac-sha1', 'mac_algs')) == len(MACS)
    assert select_algorithms('mac', '+hmac-sha1', 'mac_algs') == MACS
    assert select_algorithms('mac', '+hmac-sha1', 'mac_algs', [b'hmac-sha2-512']) == (b'hmac-sha2-512', b'hmac-sha1')
    assert select_algorithms('mac', 'hmac-sha1,default', 'x', [b'hmac-sha2-512']) == (b'hmac-sha1', b'hmac-sha2-512')


@pytest.mark.parametrize(
    'value', ['hmac-md4', 'hmac-sha1,hmac-md4', ['hmac-md4'], '+hmac-md4', '-hmac-md4', 'hmac-md4*', 'Legacy,hmac-md4']
)
def test_unknown_name_is_told(value: object) -> None:
    with pytest.raises(ValueError, match=r'mac_algs: .*(hmac-md4|Legacy)'):
        select_algorithms('mac', value, 'mac_algs')


@pytest.mark.parametrize('value', ['-*', '[a-z]*', 'HMAC-SHA1', ','])
def test_nothing_left_or_wrong(value: str) -> None:
    with pytest.raises(ValueError, match='mac_algs'):
        select_algorithms('mac', value, 'mac_algs')


def test_not_text() -> None:
    with pytest.raises(ValueError, match='mac_algs'):
        select_algorithms('mac', [b'hmac-sha1'], 'mac_algs')
    with pytest.raises(ValueError, match='kind'):
        select_algorithms('colour', None, 'x')


# --- presets

LEGACY = {
    'kex': {'diffie-hellman-group1-sha1', 'diffie-hellman-group14-sha1', 'diffie-hellman-group-exchange-sha1'},
    'encryption': {
        'aes128-cbc', 'aes192-cbc', 'aes256-cbc', '3des-cbc', 'blowfish-cbc', 'cast128-cbc', 'seed-cbc@ssh.com',
        'arcfour', 'arcfour128', 'arcfour256',
    },
    'mac': {
        name + etm
        for name in ('hmac-md5', 'hmac-md5-96', 'hmac-sha1-96', 'hmac-sha2-256-96', 'hmac-sha2-512-96')
        for etm in ('', '-etm@openssh.com')
    },
    'compression': {'zlib'},
    'signature': {'ssh-rsa', 'ssh-dss'},
    'host_key': {
        'ssh-rsa', 'ssh-dss', 'ssh-rsa-cert-v01@openssh.com', 'ssh-dss-cert-v01@openssh.com', 'x509v3-ssh-rsa',
    },
}  # fmt: skip
WEAK = ('sha1', 'md5', 'cbc', 'arcfour', 'ssh-rsa', 'ssh-dss', '-96')


@pytest.mark.parametrize('kind', KINDS)
def test_legacy_comes_behind_the_default_and_only_by_its_name(kind: str) -> None:
    default, legacy = available_algorithms(kind), legacy_algorithms(kind)
    assert {name.decode() for name in legacy} == LEGACY[kind]
    assert not set(default) & set(legacy)
    assert select_algorithms(kind, 'legacy', 'x') == select_algorithms(kind, ['legacy'], 'x') == default + legacy
    assert select_algorithms(kind, '+legacy', 'x') == default + legacy
    for value in ('default', '*', ['*'], '^*', f'+{default[0].decode()}'):
        assert set(select_algorithms(kind, value, 'x')) == set(default)
    for name in LEGACY[kind]:
        assert select_algorithms(kind, [name], 'x') == (name.encode(),)
        assert select_algorithms(kind, f'+{name}', 'x') == (*default, name.encode())


@pytest.mark.parametrize('kind', KINDS)
def test_hardened_holds_nothing_weak_and_is_a_part_of_the_default(kind: str) -> None:
    names = select_algorithms(kind, 'hardened', 'x')
    assert names == hardened_algorithms(kind) != ()
    assert set(names) <= set(available_algorithms(kind))
    assert not [name for name in names for weak in WEAK if weak in name.decode()]
    if kind == 'kex':
        assert all(name.startswith((b'mlkem', b'sntrup')) for name in names)
    if kind == 'mac':
        assert all(name.endswith(b'-etm@openssh.com') for name in names)


def test_wildcards_bring_nothing_weak_in_unless_they_name_nothing_else() -> None:
    assert select_algorithms('encryption', 'aes*-c?c', 'x') == (b'aes256-cbc', b'aes192-cbc', b'aes128-cbc')
    assert all(b'cbc' not in name for name in select_algorithms('encryption', 'aes*', 'x'))
    assert all(b'sha1' not in name for name in select_algorithms('kex', 'diffie-hellman-*', 'x'))
    assert select_algorithms('kex', 'diffie-hellman-*-sha1', 'x') == legacy_algorithms('kex')
    # what OpenSSH users write to be rid of CBC
    assert select_algorithms('encryption', '-*-cbc', 'x') == available_algorithms('encryption')


def test_presets_mix_with_names() -> None:
    default = available_algorithms('mac')
    assert select_algorithms('mac', 'hmac-md5,hardened', 'x') == (b'hmac-md5', *hardened_algorithms('mac'))
    assert select_algorithms('mac', '-hardened', 'x') == tuple(
        name for name in default if name not in hardened_algorithms('mac')
    )
    assert select_algorithms('mac', 'legacy', 'x', [b'hmac-sha1']) == (b'hmac-sha1', *legacy_algorithms('mac'))
