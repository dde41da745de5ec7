"""How many sessions a client may have open at once on one connection."""

import asyncio

import pytest

import ssh_fast
from ssh_fast.errors import ChannelOpenError


async def wait_for_end(process: ssh_fast.SSHServerProcess[str]) -> None:
    await process.stdin.read()
    process.exit(0)


async def test_max_sessions_bounds_open_sessions_and_frees_those_that_end() -> None:
    host_key = ssh_fast.generate_private_key('ssh-ed25519')
    user_key = ssh_fast.generate_private_key('ssh-ed25519')
    authorized = ssh_fast.import_authorized_keys(user_key.export_public_key().decode())

    async with (
        ssh_fast.listen(
            '127.0.0.1',
            0,
            server_host_keys=[host_key],
            authorized_client_keys=authorized,
            process_factory=wait_for_end,
            max_sessions=20,
        ) as server,
        ssh_fast.connect(
            '127.0.0.1', server.get_port(), username='user', client_keys=[user_key], known_hosts=None, agent_path=None
        ) as conn,
    ):
        processes = await asyncio.gather(*(conn.create_process() for _ in range(20)))

        with pytest.raises(ChannelOpenError, match='20 sessions'):
            await conn.create_process()

        processes[0].stdin.write_eof()
        assert (await processes[0].wait()).exit_status == 0
        processes[0] = await conn.create_process()

        for process in processes:
            process.stdin.write_eof()
            assert (await process.wait()).exit_status == 0
