"""Programs that were written for AsyncSSH, on ours: `make ecosystem` installs them in an environment of their own.

Each is started there with the alias installed before anything is imported (SSH_FAST_AS_ASYNCSSH, a .pth file).
"""

import os
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from tests.interop.peers import CommandFailed, OpenSSHServer

ROOT = Path(__file__).resolve().parents[2]
PLACE = Path(os.environ.get('SSH_FAST_ECOSYSTEM') or ROOT / '.venv-ecosystem')

pytestmark = [
    pytest.mark.skipif(not (PLACE / '.ready').exists(), reason=f'{PLACE} is not there: run `make ecosystem`'),
    pytest.mark.timeout(600),
]


def run(*arguments: str, folder: Path = ROOT) -> str:
    """Run that environment's Python, and return what it printed."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'SSH_FAST_AS_ASYNCSSH': '1'}
    command = [str(PLACE / 'bin/python'), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=590)
    if done.returncode:
        raise CommandFailed(f'{arguments} ended with {done.returncode}\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}')
    return done.stdout


def run_suite(name: str, *arguments: str) -> str:
    """Run the test-suite in the unpacked source of a package."""
    (source,) = (PLACE / 'sources').glob(f'{name}-*')
    return run('-m', 'pytest', '-q', '-p', 'no:cacheprovider', *arguments, 'tests', folder=source)


def on(server: OpenSSHServer, program: str, *arguments: str) -> str:
    """Run a program that has `options`, those of connect(), and `ssh_fast`."""
    return run('-c', f'options = {server.target.connect_options()!r}\n{dedent(program)}', *arguments)


def test_alias_is_what_programs_get() -> None:
    assert run('-c', 'import asyncssh; print(asyncssh.connect.__module__)') == 'ssh_fast.endpoints\n'


def test_sshfs_suite() -> None:
    assert ' passed' in run_suite('sshfs')


def test_dask_cluster(sshd: OpenSSHServer) -> None:
    program = """
        from dask.distributed import Client, SSHCluster

        if __name__ == '__main__':
            options.pop('host')
            ports = {'port': 0, 'dashboard_address': ':0'}
            made = SSHCluster(['127.0.0.1'] * 3, options, worker_options={'nthreads': 1}, scheduler_options=ports)
            with made as cluster, Client(cluster) as client:
                print(len(client.scheduler_info()['workers']), client.submit(sum, range(10)).result())
    """
    assert on(sshd, program).splitlines()[-1] == '2 45'


def test_nw_ssh(sshd: OpenSSHServer) -> None:
    program = """
        import asyncio, nw_ssh

        async def main():
            async with nw_ssh.SSHConnection(
                options['host'], options['username'], port=options['port'], client_keys=options['client_keys'],
                known_hosts_file=options['known_hosts'], delimiter='[#$] ', timeout=20,
            ) as conn:
                print(await conn.send('echo $((6 * 7))'))

        asyncio.run(main())
    """
    assert '\n42\n' in on(sshd, program)


def test_sshexpect(sshd: OpenSSHServer) -> None:
    program = """
        import asyncio, asyncssh, sshexpect

        async def main():
            async with asyncssh.connect(**options) as conn:
                child = await sshexpect.spawn(conn, 'printf name?; read n; echo got-$n-')
                await child.expect('name[?]')
                child.sendline('me')
                await child.expect('got-(.*)-')
                print(child.match.group(1))

        asyncio.run(main())
    """
    assert on(sshd, program) == 'me\n'


def test_asyncsshscript(tmp_path: Path) -> None:
    (tmp_path / 'script.sh').write_text('echo from-$((40 + 2))\n')
    program = """
        import asyncio, subprocess, asyncssh, asyncsshscript

        class Server(asyncssh.SSHServer):
            def password_auth_supported(self):
                return True

            def validate_password(self, username, password):
                return password == 'secret'

        async def handle(process):
            shell = subprocess.Popen(process.command, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            await process.redirect(stdin=shell.stdin, stdout=shell.stdout)
            await process.stdout.drain()
            process.exit(await asyncio.to_thread(shell.wait))

        async def main():
            key = asyncssh.generate_private_key('ssh-ed25519')
            async with asyncssh.listen('127.0.0.1', 0, server_host_keys=[key], server_factory=Server,
                                       process_factory=handle) as server:
                conn = asyncsshscript.AuthHostSession('127.0.0.1', 'me', 'secret')
                assert await conn.connect(port=server.get_port())
                print(await conn.command('echo by-command'))
                print(await conn.bash_file(__import__('sys').argv[1]))
                await conn.close()

        asyncio.run(main())
    """
    shown = run('-c', dedent(program), str(tmp_path / 'script.sh'))
    assert 'by-command' in shown and 'from-42' in shown


def test_dask_reads_by_many_connections(sshd: OpenSSHServer, tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f'{number}.csv').write_text(''.join(f'{number},{line}\n' for line in range(1000)))
    program = """
        import os, sys
        import dask.bag, fsspec
        from dask.distributed import Client, LocalCluster

        if __name__ == '__main__':
            fsspec.register_implementation('ssh-fast', 'ssh_fast.filesystem.SSHFileSystem')
            place = 'ssh-fast://{username}@{host}:{port}'.format(**options)
            others = {name: value for name, value in options.items() if name not in ('host', 'port', 'username')}
            with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster, Client(cluster):
                lines = dask.bag.read_text(f'{place}{sys.argv[1]}/*.csv', storage_options=others)
                total = lines.map(lambda line: int(line.split(',')[1])).sum().compute()
                workers = lines.map_partitions(lambda part: [os.getpid()]).distinct().compute()
                print(lines.npartitions, total, len(workers))
    """
    assert on(sshd, program, str(tmp_path)).splitlines()[-1] == '8 3996000 2'
