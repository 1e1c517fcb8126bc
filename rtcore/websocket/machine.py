"""One WebSocket connection (RFC 6455), either side: handshake, messages, keepalive and close, with time as an argument.

States and what moves between them:

    CONNECTING --handshake done--> OPEN --a Close frame written--> CLOSING --closing handshake done--> CLOSED

and from every state straight to CLOSED when the bytes end. One deadline runs at a time: for the handshake, for the next
ping, for the answer to a ping, or for the end of the closing handshake; in OPEN beside it that for the end of a message
of which a part has come. What does not fit the table: after a fault of the peer the machine is CLOSING, and reads on
only to find the peer's Close frame.

A server may write frames of `rtcore.frames` to the socket past the machine as long as the state is OPEN; once it is
not, "the endpoint MUST NOT send any more data frames" (section 5.5.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, assert_never

from rtcore.errors import CloseCode, LocalProtocolError, Refusal
from rtcore.frames import Opcode, close_payload, encode_frame
from rtcore.handshake import (
    Accepted,
    Answer,
    ClientHandshake,
    Declined,
    Failed,
    ServerHandshake,
    UpgradeRequest,
    accept_response,
    check_request,
    refusal_response,
    reject_response,
)

from .commands import Accept, Close, Reject, SendBytes, SendPing, SendText, WebSocketCommand
from .config import WebSocketConfig
from .effects import (
    BytesReceived,
    Closed,
    HandshakeRequested,
    Opened,
    PongReceived,
    Rejected,
    TextReceived,
    WebSocketEffect,
    Write,
)
from .frame_reader import CloseReceived, FrameEvent, FrameFault, FrameReader, PingReceived
from .state import WebSocketState

__all__ = ["WebSocket"]

# What a client may send before it is accepted; it should send nothing (section 4.1), so one full read is generous.
_MAX_EARLY: Final = 65536


class WebSocket:
    """One WebSocket connection.

    Every input returns what must happen, in order. A fault of the peer never raises.
    """

    __slots__ = (
        "_clean",
        "_code",
        "_config",
        "_early",
        "_entropy",
        "_fault",
        "_handshake",
        "_heard_at",
        "_message_by",
        "_pinged",
        "_reader",
        "_reason",
        "_request",
        "_server",
        "_state",
        "_timeout_at",
    )

    def __init__(self, config: WebSocketConfig, entropy: Callable[[int], bytes] | None, now: float) -> None:
        """Not for use: take `server`, `from_request` or `client`."""
        self._config = config
        self._entropy = entropy  # for masks; a server has none
        self._server = entropy is None
        self._state = WebSocketState.CONNECTING
        self._handshake: ServerHandshake | ClientHandshake | None = None
        self._request: UpgradeRequest | None = None  # awaits the caller's Accept or Reject
        self._early = b""  # came after it
        self._reader: FrameReader | None = None  # in OPEN and CLOSING
        self._heard_at = now
        self._pinged = False
        self._timeout_at = None if config.handshake_timeout is None else now + config.handshake_timeout
        self._message_by: float | None = None  # in OPEN, while a part of a frame or message has come
        # Of the end, as far as it is known
        self._code = int(CloseCode.ABNORMAL_CLOSURE)
        self._reason = ""
        self._fault: str | None = None
        self._clean = False

    @classmethod
    def server(cls, config: WebSocketConfig, *, now: float) -> WebSocket:
        """Start as a server that is fed the bytes of the HTTP request too."""
        self = cls(config, None, now)
        self._handshake = ServerHandshake(max_size=config.max_handshake_size)
        return self

    @classmethod
    def from_request(
        cls,
        config: WebSocketConfig,
        *,
        method: bytes,
        target: str,
        headers: Sequence[tuple[bytes, bytes]],
        http_version: bytes,
        now: float,
    ) -> tuple[WebSocket, list[WebSocketEffect]]:
        """Start as a server whose host has read the HTTP request itself; what came after it goes to `receive_data`.

        Args:
            config: Limits and times.
            method: As on the request line.
            target: Path and query.
            headers: All headers, in order.
            http_version: ``b"1.1"`` and the like.
            now: Seconds on a monotonic clock.

        Returns:
            The machine, and `HandshakeRequested`, or for a bad request `Write` and `Closed`.
        """
        self = cls(config, None, now)
        outcome = check_request(method=method, target=target, headers=headers, http_version=http_version)
        return self, self._requested(outcome)

    @classmethod
    def client(
        cls,
        config: WebSocketConfig,
        *,
        host: str,
        target: str,
        headers: Iterable[tuple[bytes, bytes]] = (),
        subprotocols: Sequence[str] = (),
        entropy: Callable[[int], bytes],
        now: float,
    ) -> tuple[WebSocket, list[WebSocketEffect]]:
        """Start as a client on a transport that is connected.

        Args:
            config: Limits and times.
            host: The host, with the port where it is not the scheme's.
            target: Path and query.
            headers: Headers of the caller's, such as ``Origin`` or ``Authorization``.
            subprotocols: What to offer, most wanted first.
            entropy: Gives that many unpredictable bytes (section 5.3).
            now: Seconds on a monotonic clock.

        Returns:
            The machine, and the `Write` of the request.

        Raises:
            LocalProtocolError: The request cannot be written.
        """
        handshake = ClientHandshake(
            host=host,
            target=target,
            headers=headers,
            subprotocols=subprotocols,
            entropy=entropy,
            max_size=config.max_handshake_size,
        )
        self = cls(config, entropy, now)
        self._handshake = handshake
        return self, [Write(handshake.request)]

    @property
    def state(self) -> WebSocketState:
        """Where the connection stands."""
        return self._state

    def next_timeout(self) -> float | None:
        """Return when to call `handle_timeout`, in seconds on the clock of `now`, or ``None``.

        Bytes of the peer do not move it as a rule: a call may find that there is nothing to do yet, and then moves it.
        So a driver does not have to put the connection elsewhere in its heap for every message.
        """
        if self._message_by is None or (self._timeout_at is not None and self._timeout_at < self._message_by):
            return self._timeout_at
        return self._message_by

    def receive_data(self, data: bytes, *, now: float) -> list[WebSocketEffect]:
        """Take bytes of the peer.

        Args:
            data: Bytes as they came, in any split; at most 64 KiB keep a call short. Empty is nothing.
            now: Seconds on a monotonic clock.

        Returns:
            `HandshakeRequested` or `Opened`, then messages and the `Write` of pongs as they came. After a fault `Write`
            of the farewell and of the Close frame follow, and `Closed` once the closing handshake is done. Messages
            are also returned between our own Close frame and the peer's; after the peer's everything is ignored.
        """
        effects: list[WebSocketEffect] = []
        if not data:
            return effects
        reader = self._reader
        if reader is None:
            if self._state is WebSocketState.CONNECTING:
                self._receive_handshake(data, effects, now)
            return effects
        self._heard_at = now
        if self._pinged:
            self._pinged = False
            self._timeout_at = self._ping_at()
        controls = reader.controls
        for event in reader.receive_data(data):
            if type(event) is TextReceived:
                effects.append(event)
            else:
                self._handle(event, effects, now)
        if reader.in_message:
            self._begin_message(effects, now, anew=reader.controls != controls)
        else:
            self._message_by = None
        return effects

    def receive_eof(self, *, now: float) -> list[WebSocketEffect]:
        """Take note that the peer will send no more bytes, or that the transport is gone.

        Returns:
            `Closed`; before it, on a client, the `Rejected` of a response that ends with the bytes. Half a request is
            not answered. Nothing where the connection had ended before.
        """
        match self._state:
            case WebSocketState.CONNECTING if isinstance(self._handshake, ClientHandshake):
                return self._answered(self._handshake.stop("the server ended the connection during the handshake"), now)
            case WebSocketState.CONNECTING:
                # "A server that receives an incomplete request message, usually due to a canceled request or a
                # triggered timeout exception, MAY send an error response prior to closing the connection." (RFC 9112,
                # section 8) It does not: where the request was cut on its way, 400 would tell the client not to try
                # again.
                return [self._end("the client ended the connection during the handshake")]
            case WebSocketState.OPEN:
                # "If _The WebSocket Connection is Closed_ and no Close control frame was received by the endpoint (such
                # as could occur if the underlying transport connection is lost), _The WebSocket Connection Close Code_
                # is considered to be 1006." (section 7.1.5)
                assert self._reader is not None  # as in every OPEN
                where = "in the middle of a message" if self._reader.in_message else "without a Close frame"
                return [self._end(f"the connection ended {where}")]
            case WebSocketState.CLOSING:
                return [self._end(None if self._clean else "the connection ended before the peer's Close frame")]
            case WebSocketState.CLOSED:
                return []
            case _:
                assert_never(self._state)

    def handle_timeout(self, *, now: float) -> list[WebSocketEffect]:
        """Do what is due at `now`; nothing, where `next_timeout` lies ahead.

        Returns:
            In CONNECTING a server's `Write` of a 408 or 503 response, or a client's `Rejected` where a response is half
            read, and `Closed`; in OPEN the `Write` of a ping, or after a ping without an answer, and for a message that
            does not end, of the farewell and of the Close frame; in CLOSING `Closed`.
        """
        if self._message_by is not None and now >= self._message_by:
            return self._give_up(
                CloseCode.POLICY_VIOLATION, f"a message was not complete after {self._config.message_timeout:g} s", now
            )
        if self._timeout_at is None or now < self._timeout_at:
            return []
        match self._state:
            case WebSocketState.CONNECTING if isinstance(self._handshake, ClientHandshake):
                return self._answered(self._handshake.stop("the server did not answer in time"), now)
            case WebSocketState.CONNECTING if self._request is None:
                return self._refuse(Refusal("handshake_timeout", "the request took too long", 408))
            case WebSocketState.CONNECTING:
                # The client did its part; it is the application that has not decided.
                return self._refuse(Refusal("handshake_timeout", "the server took too long, try again", 503))
            case WebSocketState.OPEN if self._pinged:
                silence = f"no sign of life for {self._config.pong_timeout:g} seconds after a ping"
                return self._give_up(CloseCode.HEARTBEAT_MISSED, silence, now)
            case WebSocketState.OPEN:
                interval = self._config.ping_interval
                assert interval is not None  # else OPEN without a ping has no deadline
                if now < self._heard_at + interval:
                    self._timeout_at = self._heard_at + interval
                    return []
                pong_timeout = self._config.pong_timeout
                self._pinged = pong_timeout is not None
                self._timeout_at = now + (interval if pong_timeout is None else pong_timeout)
                return [self._frame(Opcode.PING, b"")]
            case WebSocketState.CLOSING | WebSocketState.CLOSED:  # the latter has no deadline
                return [self._end(None if self._clean else "the peer did not answer the Close frame in time")]
            case _:
                assert_never(self._state)

    def send(self, command: WebSocketCommand, *, now: float) -> list[WebSocketEffect]:
        """Carry out a command.

        Args:
            command: `Accept` or `Reject` once after `HandshakeRequested`; the others while the state is OPEN.
            now: Seconds on a monotonic clock.

        Returns:
            One `Write`; after `Accept` also `Opened` and what `receive_data` would have returned for bytes that came
            early, after `Reject` also `Closed`.

        Raises:
            LocalProtocolError: The state does not allow it, or it cannot be encoded. Nothing has changed.
        """
        match command:
            case SendText(text=text):
                self._require_open()
                try:
                    payload = text.encode()
                except UnicodeEncodeError as error:
                    raise LocalProtocolError("the text holds a lone surrogate, which UTF-8 cannot carry") from error
                return [self._frame(Opcode.TEXT, payload)]
            case SendBytes(data=data):
                self._require_open()
                return [self._frame(Opcode.BINARY, data)]
            case SendPing(payload=payload):
                self._require_open()
                return [self._frame(Opcode.PING, payload)]
            case Close(code=code, reason=reason):
                self._require_open()
                effects: list[WebSocketEffect] = [self._frame(Opcode.CLOSE, close_payload(code, reason))]
                self._close(code, reason, now)
                return effects
            case Accept(subprotocol=subprotocol, headers=headers):
                request = self._require_request()
                response = accept_response(request, subprotocol=subprotocol, headers=headers)
                return [Write(response), *self._open(Opened(subprotocol, request.headers), self._early, now)]
            case Reject(status=status, headers=headers, body=body):
                self._require_request()
                response = reject_response(status=status, headers=headers, body=body)
                return [Write(response), self._end(None)]
            case _:
                assert_never(command)

    def _require_open(self) -> None:
        if self._state is not WebSocketState.OPEN:
            raise LocalProtocolError(f"the connection is {self._state.value}, not open")

    def _require_request(self) -> UpgradeRequest:
        if self._request is None:
            raise LocalProtocolError("there is no handshake to accept or reject")
        return self._request

    # The opening handshake

    def _receive_handshake(self, data: bytes, effects: list[WebSocketEffect], now: float) -> None:
        match self._handshake:
            case ServerHandshake() as handshake:
                outcome = handshake.receive_data(data)
                if outcome is not None:
                    effects += self._requested(outcome)
                    self._keep(handshake.trailing, effects)
            case ClientHandshake() as handshake:
                answer = handshake.receive_data(data)
                if answer is not None:
                    effects += self._answered(answer, now)
            case None:
                self._keep(data, effects)
            case _:
                assert_never(self._handshake)

    def _keep(self, data: bytes, effects: list[WebSocketEffect]) -> None:
        """Keep what a client sends before it is accepted."""
        if self._state is WebSocketState.CONNECTING:
            self._early += data
            if len(self._early) > _MAX_EARLY:
                effects += self._refuse(Refusal("early_data", "wait for the answer to the handshake", 400))

    def _requested(self, outcome: UpgradeRequest | Refusal) -> list[WebSocketEffect]:
        self._handshake = None
        if isinstance(outcome, Refusal):
            return self._refuse(outcome)
        self._request = outcome
        return [HandshakeRequested(outcome.target, outcome.headers, outcome.subprotocols)]

    def _refuse(self, refusal: Refusal) -> list[WebSocketEffect]:
        return [Write(refusal_response(refusal)), self._end(refusal.message)]

    def _answered(self, answer: Answer, now: float) -> list[WebSocketEffect]:
        match answer:
            case Accepted(subprotocol=subprotocol, headers=headers):
                assert self._handshake is not None  # it gave the answer
                return self._open(Opened(subprotocol, headers), self._handshake.trailing, now)
            case Declined(status=status, headers=headers, body=body):
                return [Rejected(status, headers, body), self._end(f"the server answered {status}")]
            case Failed(fault=fault):
                return [self._end(fault)]
            case _:
                assert_never(answer)

    def _open(self, opened: Opened, early: bytes, now: float) -> list[WebSocketEffect]:
        self._state = WebSocketState.OPEN
        self._handshake = None
        self._request = None
        self._early = b""
        self._reader = FrameReader(
            masked=self._server,
            max_message_size=self._config.max_message_size,
            max_binary_size=self._config.max_binary_size,
            max_frame_size=self._config.max_frame_size,
        )
        self._heard_at = now
        self._timeout_at = self._ping_at()
        return [opened, *self.receive_data(early, now=now)]

    # Frames

    def _ping_at(self) -> float | None:
        interval = self._config.ping_interval
        return None if interval is None else self._heard_at + interval

    def _frame(self, opcode: Opcode, payload: bytes) -> Write:
        return Write(encode_frame(opcode, payload, mask=None if self._entropy is None else self._entropy(4)))

    def _handle(self, event: FrameEvent, effects: list[WebSocketEffect], now: float) -> None:
        match event:
            case TextReceived() | BytesReceived() | PongReceived():
                effects.append(event)
            case PingReceived(payload=payload):
                # "Upon receipt of a Ping frame, an endpoint MUST send a Pong frame in response, unless it already
                # received a Close frame." (section 5.5.2) Having sent one we say no more either.
                if self._state is WebSocketState.OPEN:
                    effects.append(self._frame(Opcode.PONG, payload))
            case FrameFault(code=code, message=message):
                self._fault = message
                if self._state is WebSocketState.OPEN:
                    self._fail(code, message, effects, now)
            case CloseReceived(code=code, reason=reason):
                self._clean = True
                if self._state is WebSocketState.OPEN:
                    # "When sending a Close frame in response, the endpoint typically echos the status code it
                    # received." (section 5.5.1)
                    echo = b"" if code == CloseCode.NO_STATUS_RECEIVED else close_payload(code)
                    effects.append(self._frame(Opcode.CLOSE, echo))
                    self._close(code, reason, now)
                if self._server:
                    # "the server MUST close the underlying TCP connection immediately; the client SHOULD wait for the
                    # server to close the connection" (section 5.5.1)
                    effects.append(self._end(None))
            case _:
                assert_never(event)

    def _begin_message(self, effects: list[WebSocketEffect], now: float, *, anew: bool) -> None:
        """Take note that a part of a frame or message has come, with or after `effects`.

        Args:
            effects: Of the same bytes.
            now: When they came.
            anew: Whether what was unfinished before has ended, even if no message shows it.
        """
        timeout = self._config.message_timeout
        if timeout is None or self._state is not WebSocketState.OPEN:
            return
        if self._message_by is None or anew or any(type(one) in (TextReceived, BytesReceived) for one in effects):
            self._message_by = now + timeout

    def _give_up(self, code: int, reason: str, now: float) -> list[WebSocketEffect]:
        """End the connection for what the peer has not done in time."""
        assert self._reader is not None  # as in every OPEN
        self._reader.drain()
        effects: list[WebSocketEffect] = []
        self._fail(code, reason, effects, now)
        return effects

    def _fail(self, code: int, reason: str, effects: list[WebSocketEffect], now: float) -> None:
        """End the connection for a fault of the peer (section 7.1.7), which has stopped the reader."""
        self._fault = reason
        if self._config.farewell is not None:
            effects.append(self._frame(Opcode.TEXT, self._config.farewell(code, reason).encode()))
        effects.append(self._frame(Opcode.CLOSE, close_payload(code, reason)))
        self._close(code, reason, now)

    def _close(self, code: int, reason: str, now: float) -> None:
        self._state = WebSocketState.CLOSING
        self._code = int(code)
        self._reason = reason
        self._pinged = False
        self._message_by = None
        self._timeout_at = now + self._config.close_timeout

    def _end(self, fault: str | None) -> Closed:
        self._state = WebSocketState.CLOSED
        self._timeout_at = None
        self._message_by = None
        self._handshake = None
        self._request = None
        self._reader = None
        self._early = b""
        return Closed(self._code, self._reason, self._fault or fault, self._clean)
