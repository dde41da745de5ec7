"""Serve real shells: each client gets the login shell of the user who runs this program, on a terminal of its own.

    python examples/shell_server.py --authorized-keys FILE [--port 8022] [--host-key FILE] [--shell /bin/bash]
                                    [--forward-x11]

Whoever has one of the keys can do what that user can. A terminal is a pseudo-terminal of the system, so that `vim`,
`top` and job control work: the window's size is passed on, signals reach the foreground job, and when the client goes
away its processes are hung up. A command without a terminal has pipes. As the system's terminal edits lines, bytes pass
through as they are: no encoding, and no line editor.
"""

import argparse
import asyncio
import contextlib
import fcntl
import getpass
import os
import pwd
import signal
import struct
import sys
import termios
from asyncio.subprocess import Process
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ssh_fast

CHUNK = 64 * 1024

# What a client may set, as sshd's AcceptEnv in Debian has it.
ACCEPTED = ('LANG', 'LC_', 'COLORTERM')
SIGNALS = ('ABRT', 'ALRM', 'HUP', 'INT', 'KILL', 'QUIT', 'TERM', 'USR1', 'USR2')

# A session leader's first terminal becomes its controlling one: the shell opens it by name, then becomes the command.
ON_TERMINAL = 'exec <"$0" >"$0" 2>&1 "$@"'

IUTF8 = 0o40000  # of <termios.h>, absent from Python's module


def set_modes(terminal: int, modes: Mapping[int, int]) -> None:
    """Apply the modes of RFC 4254 section 8: control characters, flags of four kinds, the speeds."""
    flags = termios.tcgetattr(terminal)
    names = {getattr(ssh_fast, name): name[4:] for name in dir(ssh_fast) if name.startswith('PTY_')}

    for mode, value in modes.items():
        name = names.get(mode, '')
        bit = IUTF8 if name == 'IUTF8' else getattr(termios, name, None)
        if bit is None:
            continue
        if mode < ssh_fast.PTY_IGNPAR:
            flags[6][bit] = bytes([0 if value == 255 else value & 0xFF])
        elif mode < ssh_fast.PTY_OP_ISPEED:
            kind = 0 if mode < ssh_fast.PTY_ISIG else 3 if mode < ssh_fast.PTY_OPOST else 1 if mode < 90 else 2
            flags[kind] = flags[kind] | bit if value else flags[kind] & ~bit

    termios.tcsetattr(terminal, termios.TCSANOW, flags)


def set_size(terminal: int, width: int, height: int, pixwidth: int, pixheight: int) -> None:
    """Set the window's size, of which the system tells the foreground job by SIGWINCH."""
    sizes = (min(size, 0xFFFF) for size in (height, width, pixwidth, pixheight))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('4H', *sizes))


class Shell(ssh_fast.SSHServerSession[bytes]):
    """One shell or command, and what moves its bytes."""

    serving: set[asyncio.Task[None]] = set()

    def __init__(self, shell: str, kill_after: float) -> None:
        self._shell = shell
        self._kill_after = kill_after
        self._command: str | None = None
        self._has_terminal = False
        self._process: Process | None = None
        self._input = -1                               # where the client's bytes go
        self._unsent = bytearray()                     # those that there was no room for
        self._input_ended = False
        self._outputs: dict[int, int | None] = {}      # where bytes for the client come from: as what kind of data
        self._drained = asyncio.Event()
        self._exited = False
        self._paused = False
        self._gone = False

    # --- what the client asks for

    def connection_made(self, chan: Any) -> None:
        self._chan = chan

    def pty_requested(self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Any) -> bool:
        self._has_terminal = True
        return True

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        self._command = command
        return True

    def session_started(self) -> None:
        # What the client types before there is somebody to take it waits in the channel.
        self._chan.pause_reading()
        task = asyncio.get_running_loop().create_task(self._serve())
        self.serving.add(task)
        task.add_done_callback(self.serving.discard)

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        if self._has_terminal and self._input >= 0:
            set_size(self._input, width, height, pixwidth, pixheight)

    def signal_received(self, signal: str) -> None:
        if signal in SIGNALS:
            self._kill(signal)

    def break_received(self, msec: int) -> bool:
        if self._has_terminal and self._input >= 0:
            termios.tcsendbreak(self._input, 0)
        return self._has_terminal

    # --- the process

    async def _serve(self) -> None:
        try:
            self._process = await self._start()
        except OSError as exc:
            self._chan.write_stderr(f'Cannot start {self._shell}: {exc.strerror}\n'.encode())
            self._chan.exit(126)
            return

        if self._gone:
            self._hang_up()

        try:
            self._chan.resume_reading()
            self._send()
            self._listen()
            status = await self._process.wait()
            self._exited = True
            # A terminal may be kept open by jobs in the background: what they write later is lost, as with sshd.
            self._listen()
            await self._drained.wait()
        finally:
            self._close_files()

        if status >= 0:
            self._chan.exit(status)
        else:
            self._chan.exit_with_signal(signal.Signals(-status).name.removeprefix('SIG'))

    async def _start(self) -> Process:
        arguments = [self._shell, '-l'] if self._command is None else [self._shell, '-c', self._command]
        home, user = str(Path.home()), getpass.getuser()
        environment = {
            'HOME': home,
            'USER': user,
            'LOGNAME': user,
            'SHELL': self._shell,
            'PATH': os.environ.get('PATH', os.defpath),
            **{name: value for name, value in self._chan.get_environment().items() if name.startswith(ACCEPTED)},
        }

        if self._chan.get_x11_display():
            environment |= {name: self._chan.get_environment()[name] for name in ('DISPLAY', 'XAUTHORITY')}

        with contextlib.ExitStack() as theirs:
            if self._has_terminal:
                environment['TERM'] = self._chan.get_terminal_type() or 'dumb'
                self._input, terminal = os.openpty()
                theirs.callback(os.close, terminal)
                self._outputs = {self._input: None}
                environment['SSH_TTY'] = os.ttyname(terminal)
                set_modes(terminal, self._chan.get_terminal_modes())
                set_size(terminal, *self._chan.get_terminal_size())
                arguments = ['/bin/sh', '-c', ON_TERMINAL, os.ttyname(terminal), *arguments]
                files = [terminal] * 3
            else:
                pipes = [os.pipe() for _ in range(3)]
                files = [pipes[0][0], pipes[1][1], pipes[2][1]]
                self._input = pipes[0][1]
                self._outputs = {pipes[1][0]: None, pipes[2][0]: ssh_fast.EXTENDED_DATA_STDERR}
                for file in files:
                    theirs.callback(os.close, file)

            for file in {self._input, *self._outputs}:
                os.set_blocking(file, False)

            try:
                return await asyncio.create_subprocess_exec(
                    *arguments,
                    stdin=files[0],
                    stdout=files[1],
                    stderr=files[2],
                    cwd=home,
                    env=environment,
                    start_new_session=True,
                )
            except OSError:
                self._close_files()
                raise

    def _kill(self, name: str) -> None:
        """Send a signal to the foreground job, or to the whole group of a command without a terminal."""
        if not self._process or self._exited:
            return

        number, group = getattr(signal, f'SIG{name}'), self._process.pid
        if self._has_terminal:
            with contextlib.suppress(OSError):
                group = os.tcgetpgrp(self._input) or group
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)

    def _hang_up(self) -> None:
        """Tell the processes that nobody is there, and end those that stay."""
        if not self._process or self._exited:
            return

        process = self._process
        self._kill('HUP')
        # The session's leader gets it too, and from the terminal, once that is closed, so do its jobs.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGHUP)
        asyncio.get_running_loop().call_later(self._kill_after, self._end_for_good, process)

    def _end_for_good(self, process: Process) -> None:
        if not self._exited:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    # --- from the client to the process

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._unsent += data
        self._send()

    def eof_received(self) -> bool:
        self._input_ended = True
        self._send()
        return True

    def _send(self) -> None:
        if self._input < 0:
            return

        try:
            while self._unsent:
                del self._unsent[: os.write(self._input, self._unsent[:CHUNK])]
        except BlockingIOError:
            self._chan.pause_reading()
            asyncio.get_running_loop().add_writer(self._input, self._go_on_sending)
        except OSError:
            # It reads no more.
            self._unsent.clear()

        if self._input_ended and not self._unsent:
            self._end_input()

    def _go_on_sending(self) -> None:
        asyncio.get_running_loop().remove_writer(self._input)
        self._send()
        if not self._unsent:
            self._chan.resume_reading()

    def _end_input(self) -> None:
        self._input_ended = False

        if self._has_terminal:
            with contextlib.suppress(OSError):
                os.write(self._input, termios.tcgetattr(self._input)[6][termios.VEOF])
        else:
            os.close(self._input)
            self._input = -1

    # --- from the process to the client

    def pause_writing(self) -> None:
        self._paused = True
        for file in self._outputs:
            asyncio.get_running_loop().remove_reader(file)

    def resume_writing(self) -> None:
        self._paused = False
        self._listen()

    def _listen(self) -> None:
        for file in () if self._paused else list(self._outputs):
            asyncio.get_running_loop().add_reader(file, self._receive, file)
            if self._exited and self._has_terminal:
                self._receive(file)

    def _receive(self, file: int) -> None:
        try:
            data = os.read(file, CHUNK)
        except BlockingIOError:
            if not (self._exited and self._has_terminal):
                return
            data = b''
        except OSError:
            # On Linux a terminal that nobody has open any more fails.
            data = b''

        if data:
            with contextlib.suppress(BrokenPipeError):
                self._chan.write(data, self._outputs[file])
            if self._exited and self._has_terminal and not self._paused:
                asyncio.get_running_loop().call_soon(self._receive_rest, file)
            return

        self._close_output(file)

    def _receive_rest(self, file: int) -> None:
        if file in self._outputs and not self._paused:
            self._receive(file)

    def _close_output(self, file: int) -> None:
        del self._outputs[file]
        asyncio.get_running_loop().remove_reader(file)
        # A terminal is the input as well, and stays until the process has ended.
        if file != self._input:
            os.close(file)
        if not self._outputs:
            self._drained.set()

    # --- the end

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._hang_up()
        self._close_files()

    def _close_files(self) -> None:
        loop = asyncio.get_running_loop()

        for file in {self._input, *self._outputs} - {-1}:
            loop.remove_reader(file)
            loop.remove_writer(file)
            os.close(file)

        self._input = -1
        self._unsent.clear()
        self._outputs.clear()
        self._drained.set()


class ShellServer(ssh_fast.SSHServer):
    """Lets the owner of the keys in under the name of the user who runs this, and nobody else."""

    def __init__(self, shell: str, kill_after: float) -> None:
        self._shell = shell
        self._kill_after = kill_after
        self._is_owner = False

    def begin_auth(self, username: str) -> bool:
        self._is_owner = username == getpass.getuser()
        return True

    def session_requested(self) -> Shell | bool:
        return Shell(self._shell, self._kill_after) if self._is_owner else False


async def serve(options: argparse.Namespace) -> None:
    async with ssh_fast.listen(
        options.host,
        options.port,
        server_factory=lambda: ShellServer(options.shell, options.kill_after),
        server_host_keys=[options.host_key or ssh_fast.generate_private_key('ssh-ed25519')],
        authorized_client_keys=options.authorized_keys,
        x11_forwarding=options.forward_x11,
        encoding=None,
    ) as server:
        print(f'Listening on port {server.get_port()}', flush=True)
        await asyncio.Event().wait()


async def main() -> None:
    parser = argparse.ArgumentParser(description='Serve shells of the user who runs this.')
    parser.add_argument('--host', default='127.0.0.1', help="the address to listen on; '' for all")
    parser.add_argument('--port', type=int, default=8022, help='0 for a free one')
    parser.add_argument('--host-key', help="a private key, as ssh-keygen makes it with -t ed25519 -N ''")
    parser.add_argument('--authorized-keys', required=True)
    parser.add_argument(
        '--kill-after', type=float, default=5, metavar='SECONDS', help='the time to end once they are hung up'
    )
    parser.add_argument('--forward-x11', action='store_true', help='let X programs show themselves at the client')
    parser.add_argument('--shell', default=pwd.getpwuid(os.getuid()).pw_shell or '/bin/sh')

    try:
        await serve(parser.parse_args())
    finally:
        # The clients are gone: wait for what they ran, so that nothing stays behind.
        await asyncio.gather(*Shell.serving, return_exceptions=True)


if __name__ == '__main__':
    if sys.platform == 'win32':
        sys.exit('There are no pseudo-terminals here')
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
