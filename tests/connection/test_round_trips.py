"""What a client sends without waiting for the server."""

from typing import Any

import pytest

import ssh_fast
from ssh_fast.connection.client_login import ClientLogin


async def serve(process: Any) -> None:
    process.stdout.write('output\n')
    process.exit(0)


@pytest.mark.parametrize('algorithm', ['ssh-ed25519', 'ssh-rsa'])
async def test_a_login_waits_only_for_what_it_has_to_know(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {'key_size': 2048} if algorithm == 'ssh-rsa' else {}
    key = ssh_fast.generate_private_key(algorithm, **options)
    began_after_acceptance: list[bool] = []
    start = ClientLogin.start

    def noted_start(login: Any) -> None:
        began_after_acceptance.append(login._connection._ssh._service is not None)
        start(login)

    monkeypatch.setattr(ClientLogin, 'start', noted_start)
    host_key = ssh_fast.generate_private_key('ssh-ed25519')
    trusted = ssh_fast.import_authorized_keys(key.export_public_key().decode())

    async with (
        ssh_fast.listen(
            '127.0.0.1', 0, server_host_keys=[host_key], authorized_client_keys=trusted, process_factory=serve
        ) as acceptor,
        ssh_fast.connect(
            '127.0.0.1', acceptor.get_port(), known_hosts=None, username='user', client_keys=[key], config=None
        ) as connection,
    ):
        result = await connection.run('anything')

    assert result.stdout == 'output\n' and result.exit_status == 0
    # With which of its algorithms to sign for an RSA key the server tells before it grants the service.
    assert began_after_acceptance == [len(key.sig_algorithms) > 1]
