"""Answer what clients send to port 7 of any host with the same, by callbacks; there is no such host.

    python examples/direct_server.py --authorized-keys FILE [--port 8022] [--host-key FILE]
"""

import argparse
import asyncio
import contextlib

import ssh_fast


class EchoSession(ssh_fast.SSHTCPSession[bytes]):
    def connection_made(self, chan: ssh_fast.SSHTCPChannel[bytes]) -> None:
        self._chan = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._chan.write(data)

    def eof_received(self) -> bool:
        # Behind what was written
        self._chan.close()

        return True

    def pause_writing(self) -> None:
        self._chan.pause_reading()

    def resume_writing(self) -> None:
        self._chan.resume_reading()


class Server(ssh_fast.SSHServer):
    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> EchoSession:
        if dest_port != 7:
            raise ssh_fast.ChannelOpenError(ssh_fast.OPEN_ADMINISTRATIVELY_PROHIBITED, 'Only port 7 is served')

        return EchoSession()



async def serve(options: argparse.Namespace) -> None:
    async with ssh_fast.listen(
        options.host,
        options.port,
        server_host_keys=[options.host_key or ssh_fast.generate_private_key('ssh-ed25519')],
        authorized_client_keys=options.authorized_keys,
        server_factory=Server,
    ) as server:
        print(f'Listening on port {server.get_port()}', flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description='Echo what comes to port 7.')
    parser.add_argument('--host', default='127.0.0.1', help="the address to listen on; '' for all")
    parser.add_argument('--port', type=int, default=8022, help='0 for a free one')
    parser.add_argument('--host-key', help="a private key, as ssh-keygen makes it with -t ed25519 -N ''")
    parser.add_argument('--authorized-keys', required=True)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == '__main__':
    main()
