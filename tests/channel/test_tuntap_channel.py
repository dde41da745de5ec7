"""Channels of packets: neither joined nor cut on their way, within the window, and dropped when nobody takes them."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssh_fast.channel.session import SSHTunTapSession
from ssh_fast.channel.tuntap_channel import (
    ANY_UNIT,
    ETHERNET,
    MAX_UNIT,
    MAX_WAITING,
    POINT_TO_POINT,
    SSHTunTapChannel,
    decode_tun,
    encode_unit,
)
from ssh_fast.constants import MSG_CHANNEL_DATA, MSG_CHANNEL_OPEN, MSG_CHANNEL_WINDOW_ADJUST
from ssh_fast.errors import ChannelOpenError, PacketDecodeError, ProtocolError
from ssh_fast.wire import Cursor, encode_string, encode_uint32
from tests.channel.pair import PACKET, WINDOW, Pair


class Session(SSHTunTapSession):
    def __init__(self):
        self.packets = []
        self.lost = None
        self.calls = []

    def connection_made(self, chan):
        self.chan = chan

    def connection_lost(self, exc):
        self.lost = exc or 'closed'

    def data_received(self, data, datatype):
        self.packets.append(data)

    def pause_writing(self):
        self.calls.append('pause')

    def resume_writing(self):
        self.calls.append('resume')


def channel(end, window=WINDOW, max_packet=PACKET, version='SSH-2.0-x'):
    return SSHTunTapChannel(end.mux, asyncio.get_running_loop(), window, max_packet, window, version)


async def tunnel(pair, mode=POINT_TO_POINT, server_window=WINDOW, server_packet=PACKET, version='SSH-2.0-x'):
    """Open a tunnel; returns the client's session and the server's."""
    served = Session()

    def answer(channel_type, cursor):
        assert (channel_type, *decode_tun(cursor)) == (b'tun@openssh.com', mode, 3)
        chan = channel(pair.server, server_window, server_packet)
        chan.set_mode(mode)
        chan.set_session(served)
        return chan

    pair.server.open_requested = answer
    session = await channel(pair.client, version=version).connect(Session, mode, 3)

    return session, served


def messages(end, kind):
    return [payload for payload in end.received if payload[0] == kind]


def watch_data(end):
    """Take data by the main road, where it is seen as it was sent."""
    end.reader.express = False


async def test_the_open_is_what_openssh_says():
    pair = Pair()
    await tunnel(pair)
    opened = messages(pair.server, MSG_CHANNEL_OPEN)[0]
    numbers = encode_uint32(0), encode_uint32(WINDOW), encode_uint32(PACKET)
    fields = encode_uint32(1), encode_uint32(3)
    assert opened == bytes([MSG_CHANNEL_OPEN]) + encode_string('tun@openssh.com') + b''.join(numbers + fields)


@pytest.mark.parametrize(('first', 'family'), [(0x45, 2), (0x60, 24)])
async def test_a_packet_of_layer_3_has_its_family_in_front(first, family):
    pair = Pair()
    session, served = await tunnel(pair)
    watch_data(pair.server)
    packet = bytes([first]) + b'rest'
    session.chan.write(packet)
    pair.run()
    sent = messages(pair.server, MSG_CHANNEL_DATA)
    assert sent == [bytes([MSG_CHANNEL_DATA]) + encode_uint32(0) + encode_string(encode_uint32(family) + packet)]
    assert served.packets == [packet]


async def test_a_frame_of_layer_2_goes_as_it_is():
    pair = Pair()
    session, served = await tunnel(pair, ETHERNET)
    watch_data(pair.server)
    session.chan.write(b'\0frame')
    pair.run()
    assert messages(pair.server, MSG_CHANNEL_DATA) == [
        bytes([MSG_CHANNEL_DATA]) + encode_uint32(0) + encode_string(b'\0frame')
    ]
    assert served.packets == [b'\0frame']


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=60), st.booleans(), st.integers(0, 400))
def test_packets_are_neither_joined_nor_cut(packets, express, cut):
    async def run():
        pair = Pair(cut=cut)
        # A window of 4000 bytes lets some packets wait for an adjust.
        session, served = await tunnel(pair, ETHERNET, 4000)
        pair.server.reader.express = express
        session.chan.writelines(packets)
        served.chan.writelines(packets)
        pair.run()
        assert served.packets == session.packets == packets

    asyncio.run(run())


async def test_a_packet_waits_until_it_fits_whole():
    pair = Pair()
    session, served = await tunnel(pair, ETHERNET, server_window=1000)
    served.chan.pause_reading()
    session.chan.writelines([b'a' * 600, b'b' * 600])
    pair.run()
    assert session.chan.get_write_buffer_size() == 600 and session.chan.flow.send_window == 400
    served.chan.resume_reading()
    pair.run()
    assert served.packets == [b'a' * 600, b'b' * 600] and not session.chan.get_write_buffer_size()


async def test_the_window_is_counted_as_openssh_does():
    """Four bytes more for each packet, which its adjusts give back."""
    pair = Pair()
    session, served = await tunnel(pair, ETHERNET, version='SSH-2.0-OpenSSH_9.2p1 Debian-2')
    before = session.chan.flow.send_window
    session.chan.writelines([b'x' * 100] * 10)
    pair.run()
    assert before - session.chan.flow.send_window == 10 * 104
    served.chan.write(b'x' * 100)
    pair.run()
    assert WINDOW - served.chan.flow.send_window == 100


async def test_a_writer_is_told_to_pause():
    pair = Pair()
    session, served = await tunnel(pair, ETHERNET, server_window=100)
    served.chan.pause_reading()
    session.chan.writelines([b'x' * 90] * 1000)
    assert session.calls == ['pause']
    served.chan.resume_reading()
    pair.run()
    assert session.calls == ['pause', 'resume'] and len(served.packets) == 1000


async def test_packets_that_nobody_takes_are_dropped():
    """A flood of tiny ones costs no more than so many, and what is dropped is credited."""
    pair = Pair()
    session, served = await tunnel(pair, ETHERNET)
    served.chan.pause_reading()
    session.chan.writelines([b'%d' % number for number in range(5 * MAX_WAITING)])
    pair.run()
    assert not served.packets
    served.chan.resume_reading()
    pair.run()
    assert served.packets == [b'%d' % number for number in range(MAX_WAITING)]
    received = served.chan.flow.receive_window
    session.chan.write(b'x' * 30000)
    pair.run()
    assert served.packets[-1] == b'x' * 30000 and received - served.chan.flow.receive_window == 30000


@pytest.mark.parametrize('data', [b'', b'\0\0\2'])
async def test_a_packet_without_its_family_ends_the_channel(data):
    pair = Pair()
    session, served = await tunnel(pair)
    session.chan.set_mode(ETHERNET)
    session.chan.write(data)
    pair.run()

    if data:
        assert isinstance(served.lost, ProtocolError) and 'address family' in str(served.lost)
        assert session.lost
    else:
        assert not served.lost and not served.packets


async def test_what_cannot_be_sent_is_refused_here():
    pair = Pair()
    session, served = await tunnel(pair, server_packet=1000)

    for data, reason in ((b'\x55', 'version 4 or 6, got version 5'), (b'\x45' * 997, 'at most 1000 bytes')):
        with pytest.raises(ValueError, match=reason):
            session.chan.write(data)

    session.chan.write(b'\x45' * 996)
    pair.run()
    assert served.packets == [b'\x45' * 996]
    session.chan.write_eof()
    with pytest.raises(BrokenPipeError):
        session.chan.write(b'\x45')


async def test_a_peer_may_not_pass_the_window():
    pair = Pair()
    session, _ = await tunnel(pair, ETHERNET, server_window=1000)
    session.chan.flow.adjust(5000)
    session.chan.write(b'x' * 1001)
    pair.run()
    assert isinstance(pair.server.error, ProtocolError)


async def test_adjusts_come_as_packets_are_taken():
    pair = Pair()
    session, served = await tunnel(pair, ETHERNET, server_window=100_000)
    session.chan.writelines([b'x' * 1000] * 500)
    pair.run()
    assert len(served.packets) == 500
    pair.client.reader.express = False
    session.chan.writelines([b'x' * 1000] * 500)
    pair.run()
    assert messages(pair.client, MSG_CHANNEL_WINDOW_ADJUST)


@pytest.mark.parametrize(('unit', 'number'), [(None, ANY_UNIT), (0, 0), (MAX_UNIT, MAX_UNIT)])
def test_units(unit, number):
    assert encode_unit(unit) == number
    assert decode_tun(Cursor(encode_uint32(ETHERNET) + encode_uint32(number))) == (ETHERNET, unit)


def test_units_and_modes_that_are_none():
    for unit in (-1, MAX_UNIT + 1, ANY_UNIT, 1 << 32):
        with pytest.raises(ValueError, match='unit must be'):
            encode_unit(unit)
    for mode, unit in ((0, 1), (3, 1), (1, MAX_UNIT + 1), (1, ANY_UNIT + 1), (2, 0xFFFFFFFF)):
        with pytest.raises(ChannelOpenError, match='Expected a'):
            decode_tun(Cursor(encode_uint32(mode) + encode_uint32(unit)))
    for data in (b'', bytes(7), bytes(9)):
        with pytest.raises(PacketDecodeError):
            decode_tun(Cursor(data))
