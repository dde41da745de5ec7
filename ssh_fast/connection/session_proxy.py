"""A client's session that is run on another server: by a connection that the application answered with."""

import asyncio
from typing import Any

from ..errors import ChannelOpenError, DisconnectError
from ..process.process import SSHServerProcess

_FAILED = 255    # the exit status of OpenSSH's client when it is the connection that failed


async def run_through(conn: Any, process: SSHServerProcess[bytes]) -> None:
    """Run what the client asked for by a client's connection, and end as that ended."""

    with_terminal = process.term_type is not None
    chan: Any = process.channel
    display = chan.get_x11_display()
    # The display has another name there.
    env = {name: value for name, value in process.env.items() if not display or name not in ('DISPLAY', 'XAUTHORITY')}

    try:
        there = await conn.create_process(
            process.command,
            subsystem=process.subsystem,
            env=env,
            send_env=None,
            request_pty='force' if with_terminal else False,
            term_type=process.term_type,
            term_size=process.term_size if with_terminal else (),
            term_modes=process.term_modes if with_terminal else (),
            x11_forwarding='ignore_failure' if display else False,
            x11_display=display,
            x11_auth_path=process.env.get('XAUTHORITY'),
            encoding=None,
        )
    except (ChannelOpenError, DisconnectError) as exc:
        process.logger.info('A session could not be run on another server: %s', exc)
        process.exit(_FAILED)
        return

    try:
        await process.redirect(stdin=there.stdin, stdout=there.stdout, stderr=there.stderr)
        await _first_of(there.wait_closed(), process.wait_closed())

        if there.is_closing() and not process.is_closing():
            # All that it wrote goes out first.
            await asyncio.gather(process.stdout.drain(), process.stderr.drain())
            _end_like(there, process)
    finally:
        there.close()


def _end_like(there: Any, process: SSHServerProcess[bytes]) -> None:
    if there.exit_signal:
        process.exit_with_signal(*there.exit_signal)
    else:
        process.exit(_FAILED if there.exit_status is None else there.exit_status)


async def _first_of(*waits: Any) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]

    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
