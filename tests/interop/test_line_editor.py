"""The line editor of our server with OpenSSH's client on a real terminal, whose screen is emulated."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pyte

import ssh_fast
from tests.interop import peers
from tests.interop.ours import our_server, run_in_thread
from tests.interop.peers import KeyRing, Target

SECONDS = 20


async def dialogue(process: Any) -> None:
    """Say what came in, line by line, each time with a prompt; `later` writes while the next line is typed."""
    process.stdout.write('$ ')

    while not process.stdin.at_eof():
        try:
            line = (await process.stdin.readline()).rstrip('\n')
        except ssh_fast.TerminalSizeChanged as exc:
            process.stdout.write(f'now {exc.width}x{exc.height}\n')
            continue
        except ssh_fast.BreakReceived:
            process.channel.clear_input()
            process.stdout.write('^C\n$ ')
            continue

        if not line and not process.stdin.at_eof():
            break

        process.stdout.write(f'[{line}]\r\n$ ')

    process.exit(len(process.command or ''))


class Screen:
    """OpenSSH's client on a terminal, and what that shows."""

    def __init__(self, target: Target, width: int, height: int) -> None:
        client = peers.ssh(target, options=['RequestTTY=force', 'EscapeChar=none'])
        environment = {**peers.plain_environment(), 'TERM': 'xterm', 'LC_ALL': 'C.UTF-8'}
        self.child = pexpect.spawn(
            client.argv[0], list(client.argv[1:]), env=environment, dimensions=(height, width), encoding='utf-8'
        )
        self._screen = pyte.Screen(width, height)
        self._stream = pyte.Stream(self._screen)

    def rows(self) -> list[str]:
        return [row.rstrip() for row in self._screen.display if row.strip()]

    def wait_for(self, *rows: str) -> None:
        """Wait until these are the last rows that are shown."""
        give_up = time.monotonic() + SECONDS
        while self.rows()[-len(rows) :] != list(rows):
            assert time.monotonic() < give_up, (self.rows(), rows)
            try:
                self._stream.feed(self.child.read_nonblocking(4096, 0.1))
            except pexpect.TIMEOUT:
                continue

    def resize(self, width: int, height: int) -> None:
        """Resize the terminal; the emulator does not wrap lines anew, so it is right for lines that fit."""
        self._screen.resize(height, width)
        self.child.setwinsize(height, width)


async def with_screen(
    key_ring: KeyRing, folder: Path, talk: Callable[[Screen], None], width: int = 20, height: int = 12
) -> None:
    async with our_server(key_ring, folder, process_factory=dialogue) as target:

        def run() -> None:
            screen = Screen(target, width, height)
            try:
                talk(screen)
            finally:
                screen.child.close(force=True)

        await run_in_thread(run)


async def test_typing(key_ring: KeyRing, tmp_path: Path) -> None:
    def talk(screen: Screen) -> None:
        send = screen.child.send
        screen.wait_for('$')
        send('helo')
        screen.wait_for('$ helo')
        send('\x1b[D')
        send('l')
        screen.wait_for('$ hello')
        send('\r')
        screen.wait_for('$ hello', '[hello]', '$')
        send('日本語 e\u0301 is wide, and wraps')
        screen.wait_for('$ 日本語 \u00e9 is wide,', 'and wraps')
        send('\x01X\x05\x7f\x7f')
        screen.wait_for('$ X日本語 \u00e9 is wide,', ' and wra')
        send('\x15\x1b[A')
        screen.wait_for('$ hello')
        send('\x03')
        screen.wait_for('$ ^C', '$')
        send('\x12hel\r')
        screen.wait_for('[hello]', '$')
        send('\x04')
        screen.child.expect(pexpect.EOF)
        screen.child.close()
        assert screen.child.exitstatus == 0

    await with_screen(key_ring, tmp_path, talk)


async def test_resizing_while_a_line_is_typed(key_ring: KeyRing, tmp_path: Path) -> None:
    def talk(screen: Screen) -> None:
        screen.wait_for('$')
        screen.child.send('some words')
        screen.wait_for('$ some words')
        screen.resize(40, 12)
        screen.wait_for('$ now 40x12', 'some words')
        screen.child.send(' that fit into the wider row\x01> ')
        screen.wait_for('> some words that fit into the wider row'[:40])
        screen.child.send('\r')
        screen.wait_for('[> some words that fit into the wider ro', 'w]', '$')

    await with_screen(key_ring, tmp_path, talk)
