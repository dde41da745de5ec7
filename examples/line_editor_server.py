"""Serve a small notebook that is typed into: lines can be edited, have a history, and Tab completes words.

    python examples/line_editor_server.py --authorized-keys FILE [--port 8022] [--host-key FILE]

The server edits lines for every session with a terminal. This program adds a key of its own, and has lines
that are not shown.
"""

import argparse
import asyncio
import contextlib

import ssh_fast

COMMANDS = ('add', 'hide', 'list', 'quit')


def complete(line: str, position: int) -> tuple[str, int] | bool:
    """Complete the first word if there is one way only; False rings the bell."""

    found = [command for command in COMMANDS if command.startswith(line[:position])]

    if len(found) != 1 or position != len(line):
        return False

    return f'{found[0]} ', len(found[0]) + 1


async def read_line(process: ssh_fast.SSHServerProcess[str], prompt: str, echo: bool = True) -> str:
    """Ask for a line; one that is not echoed is not kept in the history either."""

    process.stdout.write(prompt)
    process.channel.set_echo(echo)

    while True:
        try:
            return (await process.stdin.readline()).strip()
        except ssh_fast.TerminalSizeChanged:
            pass    # the editor has taken note
        except (ssh_fast.BreakReceived, ssh_fast.SignalReceived):
            process.stdout.write('\n')

            return ''


async def keep_notes(process: ssh_fast.SSHServerProcess[str]) -> None:
    if process.term_type is None:
        process.stderr.write('This is typed into: ask for a terminal (ssh -t)\n')
        process.exit(1)
        return

    process.channel.register_key('\t', complete)
    process.stdout.write(f'Commands: {", ".join(COMMANDS)}. Tab completes them.\n')
    notes: list[str] = []

    while not process.stdin.at_eof():
        command, _, text = (await read_line(process, '> ')).partition(' ')

        if command == 'add':
            notes.append(text)
        elif command == 'hide':
            notes.append(await read_line(process, 'Not shown: ', echo=False))
        elif command == 'list':
            process.stdout.writelines(f'{number}. {note}\n' for number, note in enumerate(notes, 1))
        elif command == 'quit':
            break
        elif command:
            process.stdout.write('There is no such command\n')

    process.exit(0)


async def serve(options: argparse.Namespace) -> None:
    async with ssh_fast.listen(
        options.host,
        options.port,
        server_host_keys=[options.host_key or ssh_fast.generate_private_key('ssh-ed25519')],
        authorized_client_keys=options.authorized_keys,
        process_factory=keep_notes,
    ) as server:
        print(f'Listening on port {server.get_port()}', flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description='Serve a small notebook that is typed into.')
    parser.add_argument('--host', default='127.0.0.1', help="the address to listen on; '' for all")
    parser.add_argument('--port', type=int, default=8022, help='0 for a free one')
    parser.add_argument('--host-key', help="a private key, as ssh-keygen makes it with -t ed25519 -N ''")
    parser.add_argument('--authorized-keys', required=True)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == '__main__':
    main()
