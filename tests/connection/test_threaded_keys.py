"""Keys that wait for a person sign in a thread: the event loop goes on meanwhile."""

import asyncio
import threading

import ssh_fast
from ssh_fast.connection.threaded_keys import in_thread
from ssh_fast.keys.certificate_issue import issue_user_certificate
from ssh_fast.keys.key import generate_private_key, verify_signature
from ssh_fast.keys.keypair import SSHLocalKeyPair

KEY = generate_private_key('ssh-rsa', key_size=2048)
HOST_KEY = generate_private_key('ssh-ed25519')


class SlowPair(SSHLocalKeyPair):
    """A key pair that signs when it was touched."""

    def __init__(self, key, touched):
        super().__init__(key)
        self.use_executor = True
        self.touched = touched

    def sign(self, data):
        assert self.touched.wait(20)

        return super().sign(data)


async def test_a_login_waits_for_a_touch_and_the_loop_goes_on():
    touched = threading.Event()
    asyncio.get_running_loop().call_later(0.1, touched.set)
    server = await ssh_fast.listen(
        '127.0.0.1',
        0,
        server_host_keys=[HOST_KEY],
        authorized_client_keys=ssh_fast.import_authorized_keys(KEY.export_public_key().decode()),
    )

    async with (
        server,
        ssh_fast.connect(
            '127.0.0.1',
            server.get_port(),
            known_hosts=None,
            username='user',
            client_keys=[SlowPair(KEY, touched)],
            agent_path=None,
            config=None,
        ),
    ):
        assert touched.is_set()


async def test_signature_algorithm_and_certificate_are_kept():
    touched = threading.Event()
    touched.set()
    cert = issue_user_certificate(HOST_KEY, KEY, 'id')
    plain = in_thread(SlowPair(KEY, touched))
    shown = in_thread(SlowPair(KEY, touched).with_certificate(cert))
    assert shown.has_cert
    assert shown.public_data == cert.public_data
    assert shown.host_key_algorithms == cert.host_key_algorithms
    assert (plain.get_key_type(), plain.get_algorithm()) == ('local', 'ssh-rsa')

    for pair in (plain, shown):
        for algorithm in (b'rsa-sha2-256', b'rsa-sha2-512'):
            pair.set_sig_algorithm(algorithm)
            assert verify_signature(KEY, b'data', await pair.sign(b'data'), {algorithm})

    assert not isinstance(in_thread(SSHLocalKeyPair(KEY)).sign(b'data'), asyncio.Future)
