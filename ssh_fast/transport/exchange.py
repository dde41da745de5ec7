"""The key exchanges of a connection, one after another: from the two KEXINITs to the ciphers made of the keys."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from .._cipher import (
    OpeningCipher,
    SealingCipher,
    cipher_suite,
    mac_suite,
    new_opening_cipher,
    new_sealing_cipher,
)
from ..errors import KeyExchangeFailed, KeyImportError, ProtocolError
from ..gss_context import GSSContext
from ..keys.certificate_names import is_certificate_algorithm, plain_algorithm
from ..keys.key import decode_public_key, verify_signature
from ..keys.keypair import SSHKeyPair
from ..keys.x509 import decode_shown_certificate
from ..wire import encode_string
from .algorithms import EXT_INFO_CLIENT, EXT_INFO_SERVER, STRICT_KEX_CLIENT, STRICT_KEX_SERVER
from .host import TransportHost
from .kex import KEX_METHODS, KexContext, KexResult, KeyExchange
from .kex.gss import NULL, GSSExchange, is_gss, plain_method
from .negotiation import Algorithms, KexInit, guess_is_right, negotiate
from .options import TransportOptions

_CLIENT_TO_SERVER = b'ACE'     # the letters of IV, key and MAC key (RFC 4253 section 7.2)
_SERVER_TO_CLIENT = b'BDF'


class SessionProof(NamedTuple):
    """The host key, and its signature of the session id: what the first exchange ended with."""

    host_key: bytes
    session_id: bytes
    signature: bytes


class Exchanges:
    """Runs the exchange at hand, and keeps what outlives it: session id, strictness, host key, algorithms in force."""

    def __init__(
        self,
        host: TransportHost,
        options: TransportOptions,
        send: Callable[[bytes], None],
        exchanged: Callable[[KexResult], None],
        *,
        is_client: bool,
    ) -> None:
        self._host = host
        self._options = options
        self._send = send
        self._exchanged = exchanged
        self._is_client = is_client
        self._host_key_algs = options.host_key_algs if is_client else self._algorithms_of_host_keys()

        if options.new_gss_context is not None:
            self._host_key_algs += (NULL,)

        self.algorithms = Algorithms()
        self.session_id = b''
        self.proof: SessionProof | None = None
        self.gss_context: GSSContext | None = None      # that of the first exchange
        self.strict = False
        self.peer_takes_ext_info = False
        self.host_key_data = b''        # client: the key that was trusted

        # the exchange at hand: set from the KEXINIT until both NEWKEYS
        self._ours: KexInit | None = None
        self._our_payload = b''
        self._peer_started = False
        self._method: KeyExchange | GSSExchange | None = None
        self._skip_guess = False

    @property
    def running(self) -> bool:
        """Whether our KEXINIT is sent and NEWKEYS has not been seen in both directions."""

        return self._ours is not None

    @property
    def peer_started(self) -> bool:
        """Whether the peer sent KEXINIT and its NEWKEYS has not come."""

        return self._peer_started

    # --- KEXINIT

    def begin(self) -> None:
        """Send our KEXINIT; what it asks of the peer beyond algorithms stands in the first one only."""

        options = self._options
        markers: tuple[bytes, ...] = ()

        if not self.session_id:
            markers = (EXT_INFO_CLIENT, STRICT_KEX_CLIENT) if self._is_client else (EXT_INFO_SERVER, STRICT_KEX_SERVER)

        kex_algs = self._offered_kex_algs()
        self._ours = KexInit(
            kex_algs,
            self._host_key_algs,
            options.encryption_algs,
            options.encryption_algs,
            options.mac_algs,
            options.mac_algs,
            options.compression_algs,
            options.compression_algs,
        )
        self._our_payload = replace(self._ours, kex_algs=kex_algs + markers).encode()
        self._send(self._our_payload)

    def _offered_kex_algs(self) -> tuple[bytes, ...]:
        """List the methods: where host keys can be used, all; a client that knows the server's has it renew the keys.

        Tickets expire while a connection lasts, host keys do not.
        """

        kex_algs = self._options.kex_algs

        if self._host_key_algs == (NULL,):
            return tuple(filter(is_gss, kex_algs))

        return tuple(sorted(kex_algs, key=is_gss)) if self._is_client and self.host_key_data else kex_algs

    def kexinit_received(self, payload: bytes, sequence: int, client_version: bytes, server_version: bytes) -> None:
        """Take the peer's KEXINIT, choose the algorithms, and start the method; ours must be on its way."""

        ours = self._ours

        if ours is None or self._peer_started:
            raise ProtocolError('Expected one KEXINIT in a key exchange, got a second')

        peer = KexInit.decode(payload)

        if not self.session_id:
            self._begin_strict(peer, sequence)

        self._peer_started = True

        if self._is_client:
            self.algorithms = negotiate(ours, peer, is_client=True)
            kexinits = self._our_payload, payload
        else:
            self.algorithms = negotiate(peer, ours, is_client=False)
            kexinits = payload, self._our_payload

        self._skip_guess = peer.first_kex_packet_follows and not guess_is_right(ours, peer)
        context = KexContext(
            self._is_client,
            b''.join(encode_string(part) for part in (client_version, server_version, *kexinits)),
            self._send,
            None if self._is_client else self._host_key_for(self.algorithms.host_key),
            self.algorithms.host_key,
        )
        self._method = self._new_method(context)
        self._method.start()

    def _new_method(self, context: KexContext) -> KeyExchange | GSSExchange:
        name = self.algorithms.kex

        if not is_gss(name) or self._options.new_gss_context is None:
            return KEX_METHODS[name](context)

        method = KEX_METHODS[plain_method(name)](context)

        return GSSExchange(context, method, self._options.new_gss_context(), self._host, self._finish)

    def _begin_strict(self, peer: KexInit, sequence: int) -> None:
        """Find out whether the peer is strict; if it is, its KEXINIT must have been the first packet."""

        self.strict = (STRICT_KEX_SERVER if self._is_client else STRICT_KEX_CLIENT) in peer.kex_algs
        self.peer_takes_ext_info = not self._is_client and EXT_INFO_CLIENT in peer.kex_algs

        if self.strict and sequence:
            raise ProtocolError(f'Expected KEXINIT as the first packet, got {sequence} packets before it (strict kex)')

    def _algorithms_of_host_keys(self) -> tuple[bytes, ...]:
        """List what a server's host keys can sign with, in the order of its preference."""

        names = tuple(name for name in self._options.host_key_algs if self._host_key_for(name))

        if not names and self._options.new_gss_context is None:
            raise ValueError('host_keys: expected a host key for one of the host key algorithms')

        return names

    def _host_key_for(self, algorithm: bytes) -> SSHKeyPair | None:
        return next((pair for pair in self._options.host_keys if algorithm in pair.host_key_algorithms), None)

    # --- the method

    def message_received(self, message_type: int, payload: bytes) -> None:
        """Take a message of the method; `exchanged` is told the result. A client has then verified the signature."""

        if self._method is None:
            raise ProtocolError(f'Expected no key exchange message here, got message {message_type}')

        if self._skip_guess:
            self._skip_guess = False
            return

        result = self._method.message_received(message_type, payload)

        if result is not None:
            self._finish(result)

    def _finish(self, result: KexResult) -> None:
        self._method = None

        if self._is_client and (result.host_key_data or result.gss_context is None):
            self._verify_host_key(result)

        self._exchanged(result)

    def _verify_host_key(self, result: KexResult) -> None:
        """Verify that the key is one that was asked for, that it signed, and that it is the one trusted before."""

        algorithm = self.algorithms.host_key

        try:
            if is_certificate_algorithm(algorithm):
                cert = decode_shown_certificate(result.host_key_data)
                key, name, usable = cert.key, cert.get_algorithm(), cert.host_key_algorithms
            else:
                key = decode_public_key(result.host_key_data)
                name, usable = key.get_algorithm(), key.sig_algorithms
        except KeyImportError as exc:
            raise KeyExchangeFailed(f'Expected a valid host key: {exc}') from None

        if algorithm not in usable:
            raise KeyExchangeFailed(f'Expected a host key for {algorithm.decode()}, got one for {name}')

        names = (plain_algorithm(algorithm),)
        by_gss = result.gss_context is not None

        if not by_gss and verify_signature(key, result.exchange_hash, result.signature, names) is not True:
            raise KeyExchangeFailed('Expected a signature by the host key, got one that does not verify')

        if self.host_key_data and result.host_key_data != self.host_key_data:
            raise KeyExchangeFailed('Expected the host key of the first key exchange, got another one')

    # --- the keys

    def make_ciphers(self, result: KexResult) -> tuple[SealingCipher, OpeningCipher]:
        """Derive the keys of both directions; the first result's hash becomes the session id."""

        if not self.session_id:
            self.session_id = result.exchange_hash
            self.gss_context = result.gss_context

            if result.signature:
                self.proof = SessionProof(result.host_key_data, result.exchange_hash, result.signature)

        names = self.algorithms
        send, receive = (
            (_CLIENT_TO_SERVER, _SERVER_TO_CLIENT) if self._is_client else (_SERVER_TO_CLIENT, _CLIENT_TO_SERVER)
        )
        sealing = new_sealing_cipher(*self._cipher_keys(result, names.send_cipher, names.send_mac, send))
        opening = new_opening_cipher(*self._cipher_keys(result, names.recv_cipher, names.recv_mac, receive))

        return sealing, opening

    def end(self) -> None:
        """Both NEWKEYS have been seen."""

        self._ours = None
        self._our_payload = b''
        self._peer_started = False

    def _cipher_keys(
        self, result: KexResult, cipher: bytes, mac: bytes, letters: bytes
    ) -> tuple[bytes, bytes, bytes, bytes, bytes]:
        suite = cipher_suite(cipher)
        sizes = suite.iv_size, suite.key_size, mac_suite(mac).key_size if mac else 0
        iv, key, mac_key = (
            result.derive_key(letters[i : i + 1], self.session_id, size) for i, size in enumerate(sizes)
        )

        return cipher, key, iv, mac, mac_key
