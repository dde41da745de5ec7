"""The data path of a channel that carries packets: a message for each, which are neither joined nor cut."""

from ssh_fast._flow import ChannelFlow

class DatagramFlow(ChannelFlow):
    """A channel's data path that keeps packets whole: what is sent at once is received at once."""

    overhead: int

    @property
    def max_send_size(self) -> int: ...
