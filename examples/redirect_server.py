"""Serve one program: every session runs it on this machine, its streams joined to the client's.

    python examples/redirect_server.py --authorized-keys FILE [--port 8022] [--host-key FILE] PROGRAM [ARGUMENT]...

What a client asks for is not looked at: it gets that program and nothing else. A client that goes takes its program
with it.
"""

import argparse
import asyncio
import contextlib
import functools
import subprocess
from collections.abc import Sequence

import ssh_fast


async def run_program(argv: Sequence[str], process: ssh_fast.SSHServerProcess[bytes]) -> None:
    program = await asyncio.create_subprocess_exec(
        *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )

    try:
        await process.redirect(stdin=program.stdin, stdout=program.stdout, stderr=program.stderr)
        ended = asyncio.ensure_future(program.wait())
        gone = asyncio.ensure_future(process.wait_closed())

        await asyncio.wait([ended, gone], return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()

        if ended.done():
            # All that it wrote goes out first.
            await asyncio.gather(process.stdout.drain(), process.stderr.drain())
            status = ended.result()
            process.exit(status if status >= 0 else 128 - status)
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()


async def serve(options: argparse.Namespace) -> None:
    async with ssh_fast.listen(
        options.host,
        options.port,
        server_host_keys=[options.host_key or ssh_fast.generate_private_key('ssh-ed25519')],
        authorized_client_keys=options.authorized_keys,
        process_factory=functools.partial(run_program, options.program),
        encoding=None,
    ) as server:
        print(f'Listening on port {server.get_port()}', flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description='Serve one program.')
    parser.add_argument('program', nargs='+')
    parser.add_argument('--host', default='127.0.0.1', help="the address to listen on; '' for all")
    parser.add_argument('--port', type=int, default=8022, help='0 for a free one')
    parser.add_argument('--host-key', help="a private key, as ssh-keygen makes it with -t ed25519 -N ''")
    parser.add_argument('--authorized-keys', required=True)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == '__main__':
    main()
