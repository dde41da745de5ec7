"""Certificates with OpenSSH and AsyncSSH in both roles: whose authority signs, who shows them, what refuses them."""

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

import ssh_fast
from tests.interop import peers
from tests.interop.asyncssh_peer import asyncssh_server
from tests.interop.ours import our_server, watching
from tests.interop.peers import KEY_TYPES, LOOPBACK, CommandFailed, KeyRing, OpenSSHServer, find_program

USER = peers.user_name()

# --- what ssh-keygen and we make of a key


def keygen(*arguments: Any) -> str:
    return peers.run_tool(find_program('ssh-keygen'), *map(str, arguments)).stdout


def certified(
    key_ring: KeyRing, folder: Path, name: str, *arguments: Any, authority: str = 'ca', key_type: str = ''
) -> tuple[Path, Path]:
    """Copy a key to a folder and have ssh-keygen certify it; return the paths of key and certificate."""
    source = key_ring.private(name, key_type or name)
    key = folder / source.name
    key.write_bytes(source.read_bytes())
    key.chmod(0o600)
    public = Path(f'{key}.pub')
    public.write_bytes(Path(f'{source}.pub').read_bytes())
    keygen('-q', '-s', key_ring.private(authority, 'ed25519'), '-I', f'id of {name}', *arguments, public)
    return key, folder / f'{source.name}-cert.pub'


def authority_line(key_ring: KeyRing, options: str = 'cert-authority', name: str = 'ca') -> str:
    return f'{options} {key_ring.public(name, "ed25519").read_text()}'


async def show(process: Any) -> None:
    process.stdout.write(process.command or 'shell')
    process.exit(0)


# --- our server


REFUSALS = {
    'expired': ['-n', USER, '-V', '-2d:-1d'],
    'not yet': ['-n', USER, '-V', '+1d:+2d'],
    'another user': ['-n', 'somebody'],
    'a list in one name': ['-n', f'x{USER},y'],
    'nobody': [],
    'another address': ['-n', USER, '-O', 'source-address=10.0.0.0/8'],
    'a host': ['-h', '-n', USER],
    'an unknown critical option': ['-n', USER, '-O', 'critical:what@example.com=1'],
}


@pytest.mark.parametrize('name', KEY_TYPES)
async def test_ssh_with_a_certificate_of_ssh_keygen(name: str, key_ring: KeyRing, tmp_path: Path) -> None:
    key, _ = certified(key_ring, tmp_path, name, '-n', f'x,{USER}', '-z', '7')
    watchers, factory = watching()
    authorized = ssh_fast.import_authorized_keys(authority_line(key_ring))
    options = {'authorized_client_keys': authorized, 'process_factory': show, 'server_factory': factory}
    async with our_server(key_ring, tmp_path / 'server', **options) as target:
        result = await peers.ssh(target, 'hello', options=[f'IdentityFile={key}']).run_async()
        assert result.stdout == b'hello'
        connection = watchers[0].conn
        assert connection.check_certificate_permission('pty') and connection.permissions.pty
        assert connection.get_certificate_option('force-command') is None
        assert connection.get_key_option('cert-authority') is True


@pytest.mark.parametrize('why', REFUSALS)
async def test_our_server_refuses_a_certificate(why: str, key_ring: KeyRing, tmp_path: Path) -> None:
    key, _ = certified(key_ring, tmp_path, 'ed25519', *REFUSALS[why])
    authorized = ssh_fast.import_authorized_keys(authority_line(key_ring))
    async with our_server(key_ring, tmp_path / 'server', authorized_client_keys=authorized) as target:
        with pytest.raises(CommandFailed, match='Permission denied'):
            await peers.ssh(target, 'hello', options=[f'IdentityFile={key}']).run_async()


async def test_our_server_obeys_a_certificate(key_ring: KeyRing, tmp_path: Path) -> None:
    arguments = ['-n', USER, '-O', 'force-command=forced', '-O', 'no-pty', '-O', f'source-address={LOOPBACK}/32']
    key, _ = certified(key_ring, tmp_path, 'ed25519', *arguments)
    watchers, factory = watching()
    authorized = ssh_fast.import_authorized_keys(authority_line(key_ring))
    options = {'authorized_client_keys': authorized, 'process_factory': show, 'server_factory': factory}
    async with our_server(key_ring, tmp_path / 'server', **options) as target:
        assert (await peers.ssh(target, 'hello', options=[f'IdentityFile={key}']).run_async()).stdout == b'forced'
        terminal = peers.ssh(target, 'hello', options=[f'IdentityFile={key}', 'RequestTTY=force'])
        with pytest.raises(CommandFailed, match='PTY allocation request failed'):
            await terminal.run_async()
        connection = watchers[0].conn
        assert connection.get_certificate_option('force-command') == 'forced'
        assert not connection.check_certificate_permission('pty') and connection.check_key_permission('pty')
        assert connection.check_certificate_permission('port-forwarding')
        with pytest.raises(CommandFailed):
            await peers.sftp(target, 'pwd', options=[f'IdentityFile={key}']).run_async()


@pytest.mark.parametrize('options', ['cert-authority,principals="deploy"', 'cert-authority,principals="x,deploy"'])
async def test_principals_of_a_line(options: str, key_ring: KeyRing, tmp_path: Path) -> None:
    key, _ = certified(key_ring, tmp_path, 'ed25519', '-n', 'deploy')
    authorized = ssh_fast.import_authorized_keys(authority_line(key_ring, options))
    settings = {'authorized_client_keys': authorized, 'process_factory': show}
    async with our_server(key_ring, tmp_path / 'server', **settings) as target:
        await peers.ssh(target, 'hello', options=[f'IdentityFile={key}']).run_async()


@pytest.mark.parametrize('text, command', [
    ('# comment\nother\ncommand="forced" deploy\n', b'forced'), ('deploy\n', b'hello'),
    ('from="10.0.0.0/8" deploy\n', None), ('expiry-time="20200101" deploy\n', None), ('other\n', None), ('', None),
    ('no-such-option deploy\n', None),
])
async def test_principals_file(text: str, command: bytes | None, key_ring: KeyRing, tmp_path: Path) -> None:
    key, _ = certified(key_ring, tmp_path, 'ed25519', '-n', 'a,deploy')
    (tmp_path / 'principals').write_text(text)
    options = {
        'authorized_client_keys': None, 'trusted_user_ca_keys': str(key_ring.public('ca', 'ed25519')),
        'authorized_principals': str(tmp_path / 'principals'), 'process_factory': show,
    }
    async with our_server(key_ring, tmp_path / 'server', **options) as target:
        run = peers.ssh(target, 'hello', options=[f'IdentityFile={key}'])
        if command is None:
            with pytest.raises(CommandFailed, match='Permission denied'):
                await run.run_async()
        else:
            assert (await run.run_async()).stdout == command


async def test_trusted_authorities_without_a_principals_file(key_ring: KeyRing, tmp_path: Path) -> None:
    mine, _ = certified(key_ring, tmp_path, 'ed25519', '-n', USER)
    other, _ = certified(key_ring, tmp_path, 'other', '-n', 'other', key_type='ed25519')
    options = {'authorized_client_keys': None, 'trusted_user_ca_keys': [str(key_ring.public('ca', 'ed25519'))]}
    async with our_server(key_ring, tmp_path / 'server', **options, process_factory=show) as target:
        await peers.ssh(target, 'hello', options=[f'IdentityFile={mine}']).run_async()
        with pytest.raises(CommandFailed, match='Permission denied'):
            await peers.ssh(target, 'hello', options=[f'IdentityFile={other}']).run_async()


@pytest.mark.parametrize('what', ['serial', 'range', 'id', 'key', 'sha256', 'sha1', 'ca', 'text', 'text ca', 'other'])
async def test_revoked_certificates(what: str, key_ring: KeyRing, tmp_path: Path) -> None:
    key, _ = certified(key_ring, tmp_path, 'ed25519', '-n', USER, '-z', '77')
    authority, krl, spec = key_ring.public('ca', 'ed25519'), tmp_path / 'krl', tmp_path / 'spec'
    public = f'{key}.pub'
    specs = {
        'serial': 'serial: 77', 'range': 'serial: 5-100', 'id': 'id: id of ed25519', 'other': 'serial: 78',
        'sha256': f'sha256: {Path(public).read_text()}', 'sha1': f'sha1: {Path(public).read_text()}',
    }
    if what in specs:
        spec.write_text(specs[what] + '\n')
        keygen('-q', '-k', '-f', krl, '-s', authority, spec)
    elif what.startswith('text'):
        krl.write_text('# revoked\n' + (authority if what.endswith('ca') else Path(public)).read_text())
    else:
        keygen('-q', '-k', '-f', krl, *([public] if what == 'key' else [authority]))
    authorized = ssh_fast.import_authorized_keys(authority_line(key_ring))
    options = {'authorized_client_keys': authorized, 'revoked_keys': str(krl), 'process_factory': show}
    async with our_server(key_ring, tmp_path / 'server', **options) as target:
        run = peers.ssh(target, 'hello', options=[f'IdentityFile={key}'])
        if what == 'other':
            await run.run_async()
        else:
            with pytest.raises(CommandFailed, match='Permission denied'):
                await run.run_async()


@pytest.mark.parametrize('trusted', [True, False])
async def test_the_server_object_may_trust_an_authority(trusted: bool, key_ring: KeyRing, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    class Server(ssh_fast.SSHServer):
        def public_key_auth_supported(self) -> bool:
            return True

        async def validate_ca_key(self, username: str, key: ssh_fast.SSHKey) -> bool:
            asked.append((username, key.get_fingerprint()))
            return trusted

    key, _ = certified(key_ring, tmp_path, 'ed25519', '-n', USER)
    options = {'authorized_client_keys': None, 'server_factory': Server, 'process_factory': show}
    async with our_server(key_ring, tmp_path / 'server', **options) as target:
        result = await peers.ssh(target, 'hello', options=[f'IdentityFile={key}']).run_async(check=False)
        assert (result.status == 0) is trusted
    fingerprint = ssh_fast.read_public_key(key_ring.public('ca', 'ed25519')).get_fingerprint()
    assert set(asked) == {(USER, fingerprint)}


# --- our client


@pytest.fixture(scope='module')
def certificates_only(key_ring: KeyRing, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp('sshd')
    lines = [f'TrustedUserCAKeys {key_ring.public("ca", "ed25519")}', 'AuthorizedKeysFile none']
    with OpenSSHServer(key_ring, folder, lines) as server:
        yield server


def issue(key_ring: KeyRing, name: str = 'ed25519', **options: Any) -> tuple[ssh_fast.SSHKey, Any]:
    """Certify a key of the ring ourselves."""
    key = ssh_fast.read_private_key(key_ring.private(name, options.pop('key_type', name)))
    authority = ssh_fast.read_private_key(key_ring.private(options.pop('authority', 'ca'), 'ed25519'))
    return key, authority.generate_user_certificate(key, 'ours', **{'principals': [USER], **options})


@pytest.mark.parametrize('name', KEY_TYPES)
async def test_our_certificate_to_openssh(name: str, key_ring: KeyRing, certificates_only: OpenSSHServer) -> None:
    options = certificates_only.target.connect_options(client_keys=[issue(key_ring, name)])
    async with ssh_fast.connect(**options) as connection:
        assert (await connection.run('echo in', check=True)).stdout == 'in\n'


async def test_certificate_files(key_ring: KeyRing, certificates_only: OpenSSHServer, tmp_path: Path) -> None:
    """Beside the key, by client_certs, and by CertificateFile."""
    key, cert = certified(key_ring, tmp_path, 'rsa', '-n', USER)
    target = certificates_only.target
    async with ssh_fast.connect(**target.connect_options(client_keys=[str(key)])):
        pass
    elsewhere = cert.rename(tmp_path / 'elsewhere.pub')
    with pytest.raises(ssh_fast.PermissionDenied):
        await ssh_fast.connect(**target.connect_options(client_keys=[str(key)]))
    async with ssh_fast.connect(**target.connect_options(client_keys=[str(key)], client_certs=[str(elsewhere)])):
        pass
    config = tmp_path / 'config'
    config.write_text(f'IdentityFile {key}\nCertificateFile {elsewhere}\n')
    options = target.connect_options(config=[str(config)])
    del options['client_keys']
    async with ssh_fast.connect(**options):
        pass


@pytest.mark.parametrize('changes', [
    {'valid_before': '-1h', 'valid_after': '-2h'}, {'valid_after': '+1h'}, {'principals': ['other']},
    {'source_address': ['10.0.0.0/8']}, {'authority': 'other-ca'},
], ids=lambda changes: next(iter(changes)))  # fmt: skip
async def test_openssh_refuses_ours(changes: Any, key_ring: KeyRing, certificates_only: OpenSSHServer) -> None:
    options = certificates_only.target.connect_options(client_keys=[issue(key_ring, **changes)])
    with pytest.raises(ssh_fast.PermissionDenied):
        await ssh_fast.connect(**options)


async def test_openssh_obeys_ours(key_ring: KeyRing, certificates_only: OpenSSHServer) -> None:
    pair = issue(key_ring, force_command='echo forced', permit_pty=False, source_address=[LOOPBACK])
    async with ssh_fast.connect(**certificates_only.target.connect_options(client_keys=[pair])) as connection:
        assert (await connection.run('echo asked', check=True)).stdout == 'forced\n'


async def test_certificates_of_keys_in_an_agent(
    key_ring: KeyRing, certificates_only: OpenSSHServer, tmp_path: Path
) -> None:
    """The agent holds the key, and perhaps the certificate; a file has it otherwise."""
    key, cert = certified(key_ring, tmp_path, 'ed25519', '-n', USER)
    elsewhere = cert.rename(tmp_path / 'elsewhere.pub')
    target, path = certificates_only.target, tmp_path / 'agent'
    options = target.connect_options(agent_path=str(path))
    del options['client_keys']
    with subprocess.Popen([find_program('ssh-agent'), '-D', '-a', str(path)], stdout=subprocess.DEVNULL) as agent:
        try:
            while not path.exists():
                await asyncio.sleep(0.02)
            for files in ([key], [key, elsewhere]):
                if len(files) == 2:
                    elsewhere.rename(cert)
                environment = {**peers.plain_environment(), 'SSH_AUTH_SOCK': str(path)}
                subprocess.run(['ssh-add', '-q', str(key)], check=True, env=environment)
                certs = [] if len(files) == 2 else [str(elsewhere)]
                async with ssh_fast.connect(**options, client_certs=certs) as connection:
                    assert (await connection.run('echo in', check=True)).stdout == 'in\n'
                if certs:
                    with pytest.raises(ssh_fast.PermissionDenied):
                        await ssh_fast.connect(**options)
        finally:
            agent.terminate()


# --- host certificates


def host_certificate(key_ring: KeyRing, folder: Path, *arguments: str, name: str = 'ed25519') -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    return certified(key_ring, folder, f'host-{name}', *arguments, authority='host-ca', key_type=name)


def known_authority(key_ring: KeyRing, folder: Path, hosts: str = LOOPBACK, marker: str = '@cert-authority') -> Path:
    path = folder / 'known_authority'
    path.write_text(f'{marker} {hosts} {key_ring.public("host-ca", "ed25519").read_text()}')
    return path


@pytest.mark.parametrize('name', KEY_TYPES)
async def test_openssh_shows_a_certificate(
    name: str, key_ring: KeyRing, start_openssh: Callable[..., OpenSSHServer], tmp_path: Path
) -> None:
    _, cert = host_certificate(key_ring, tmp_path, '-h', '-n', f'{LOOPBACK},example.com', name=name)
    server = start_openssh([f'HostCertificate {cert}'], host_keys=(name,))
    options = server.target.connect_options(known_hosts=str(known_authority(key_ring, tmp_path)))
    async with ssh_fast.connect(**options) as connection:
        assert connection.get_extra_info('host_key_alg').endswith('-cert-v01@openssh.com')
        shown = connection.get_server_host_key()
        assert shown is not None and shown.public_data == ssh_fast.read_public_key(
            key_ring.public(f'host-{name}', name)
        ).public_data


HOST_REFUSALS = {
    'expired': ['-h', '-n', LOOPBACK, '-V', '-2d:-1d'],
    'not yet': ['-h', '-n', LOOPBACK, '-V', '+1d:+2d'],
    'another host': ['-h', '-n', '127.0.0.2'],
    'nobody': ['-h'],
}


@pytest.mark.parametrize('why', HOST_REFUSALS)
async def test_our_client_refuses_a_host_certificate(
    why: str, key_ring: KeyRing, start_openssh: Callable[..., OpenSSHServer], tmp_path: Path
) -> None:
    _, cert = host_certificate(key_ring, tmp_path, *HOST_REFUSALS[why])
    server = start_openssh([f'HostCertificate {cert}'], host_keys=('ed25519',))
    with pytest.raises(ssh_fast.HostKeyNotVerifiable, match='certificate'):
        await ssh_fast.connect(
            **server.target.connect_options(known_hosts=str(known_authority(key_ring, tmp_path)))
        )


@pytest.mark.parametrize('marker', ['@cert-authority', '@revoked'])
async def test_ssh_and_our_host_certificate(marker: str, key_ring: KeyRing, tmp_path: Path) -> None:
    authority = ssh_fast.read_private_key(key_ring.private('host-ca', 'ed25519'))
    key = ssh_fast.read_private_key(key_ring.private('host-ed25519', 'ed25519'))
    cert = authority.generate_host_certificate(key, 'our host', principals=[LOOPBACK])
    known = known_authority(key_ring, tmp_path, f'[{LOOPBACK}]:*,{LOOPBACK}', marker)
    settings = {'server_host_keys': [(key, cert)], 'process_factory': show}
    async with our_server(key_ring, tmp_path / 'server', **settings) as target:
        options = [f'UserKnownHostsFile={known}']
        result = await peers.ssh(target, 'hello', options=options).run_async(check=False)
        assert (result.status == 0) is (marker == '@cert-authority'), result.stderr
        ours = ssh_fast.connect(**target.connect_options(known_hosts=str(known)))
        if marker == '@cert-authority':
            async with ours as connection:
                assert connection.get_extra_info('host_key_alg') == 'ssh-ed25519-cert-v01@openssh.com'
        else:
            with pytest.raises(ssh_fast.HostKeyNotVerifiable, match='revoked'):
                await ours


async def test_a_certificate_of_an_unknown_authority_counts_for_its_key(key_ring: KeyRing, tmp_path: Path) -> None:
    key, cert = host_certificate(key_ring, tmp_path, '-h', '-n', 'elsewhere')
    settings = {'server_host_keys': [str(key)], 'server_host_certs': [str(cert)]}
    async with our_server(key_ring, tmp_path / 'server', **settings) as target:
        for name in ('ssh-ed25519', 'ssh-ed25519-cert-v01@openssh.com'):
            options = target.connect_options(server_host_key_algs=[name])
            async with ssh_fast.connect(**options) as connection:
                assert connection.get_extra_info('host_key_alg') == name
        with pytest.raises(ssh_fast.HostKeyNotVerifiable):
            await ssh_fast.connect(**{**options, 'known_hosts': b''})


async def test_revoked_host_keys_of_a_list(key_ring: KeyRing, tmp_path: Path) -> None:
    _, cert = host_certificate(key_ring, tmp_path, '-h', '-n', LOOPBACK, '-z', '9')
    krl, spec = tmp_path / 'krl', tmp_path / 'spec'
    spec.write_text('serial: 9\n')
    keygen('-q', '-k', '-f', krl, '-s', key_ring.public('host-ca', 'ed25519'), spec)
    settings = {'server_host_certs': [str(cert)]}
    async with our_server(key_ring, tmp_path / 'server', **settings) as target:
        known = str(known_authority(key_ring, tmp_path))
        async with ssh_fast.connect(**target.connect_options(known_hosts=known)):
            pass
        with pytest.raises(ssh_fast.HostKeyNotVerifiable, match='revoked'):
            await ssh_fast.connect(**target.connect_options(known_hosts=known, revoked_host_keys=str(krl)))


# --- AsyncSSH


async def test_asyncssh_and_our_certificates(key_ring: KeyRing, tmp_path: Path) -> None:
    key, cert = issue(key_ring)
    path, cert_path = tmp_path / 'key', tmp_path / 'key-cert.pub'
    key.write_private_key(path)
    cert.write_certificate(cert_path)
    authorized = ssh_fast.import_authorized_keys(authority_line(key_ring))
    options = {'authorized_client_keys': authorized, 'process_factory': show}
    async with our_server(key_ring, tmp_path / 'server', **options) as target:
        arguments = target.connect_options(client_keys=[(str(path), str(cert_path))])
        async with asyncssh.connect(**arguments) as connection:
            assert (await connection.run('hello')).stdout == 'hello'
    theirs = asyncssh.import_authorized_keys(authority_line(key_ring))
    async with asyncssh_server(key_ring, tmp_path / 'asyncssh', authorized_client_keys=theirs) as target:
        async with ssh_fast.connect(**target.connect_options(client_keys=[(key, cert)])):
            pass
