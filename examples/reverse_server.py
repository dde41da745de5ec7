"""Connect to a client that waits, and run what it asks for until it goes; `reverse_client.py` is one.

    python examples/reverse_server.py HOST --host-key FILE --authorized-keys FILE [--port 8022]
"""

import argparse
import asyncio
import subprocess
import sys

import ssh_fast


async def run_command(process: ssh_fast.SSHServerProcess[bytes]) -> None:
    if process.command is None:
        process.stderr.write(b'A command is needed\n')
        process.exit(1)

        return

    program = await asyncio.create_subprocess_shell(
        process.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    await process.redirect(stdout=program.stdout, stderr=program.stderr)
    status = await program.wait()

    # All that it wrote goes out first.
    await asyncio.gather(process.stdout.drain(), process.stderr.drain())
    process.exit(status if status >= 0 else 128 - status)


async def serve(options: argparse.Namespace) -> None:
    async with ssh_fast.connect_reverse(
        options.host,
        options.port,
        server_host_keys=[options.host_key],
        authorized_client_keys=options.authorized_keys,
        process_factory=run_command,
        encoding=None,
    ) as conn:
        print(f'{conn.get_extra_info("username")} is logged in', flush=True)
        await conn.wait_closed()


def main() -> int:
    parser = argparse.ArgumentParser(description='Serve a client that waits for us.')
    parser.add_argument('host')
    parser.add_argument('--port', type=int, default=8022)
    parser.add_argument('--host-key', required=True, help="a private key, as ssh-keygen makes it with -t ed25519 -N ''")
    parser.add_argument('--authorized-keys', required=True)

    try:
        asyncio.run(serve(parser.parse_args()))
    except (OSError, ssh_fast.Error) as exc:
        print(f'Failed: {exc}', file=sys.stderr)

        return 1

    return 0


if __name__ == '__main__':
    sys.exit(main())
