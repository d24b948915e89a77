"""What the configuration depends on beside the routes: settings, limits of this host, secrets."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.gateway.config.lanes import Lanes


@dataclass(frozen=True)
class Options:
    """Durations are seconds, sizes bytes. ``certificate`` is a file in the gateway's folder, empty without TLS."""

    host: str
    port: int
    certificate: str = ""
    threads: int = 1
    connections: int = 2000
    max_body: int = 32 * 1024 * 1024
    #: the longest a request to the control API may be silent: its waits end before it
    control_silence_s: int = 360
    #: for all headers of a request to arrive
    header_s: int = 10
    #: for a caller that neither reads nor sends in the middle of something
    caller_silence_s: int = 60
    #: for a caller's host to acknowledge what it was sent: a network that was cut says nothing else
    unacknowledged_s: float = 9.0
    #: user:password of Flower in base64
    flower_credentials: str = ""
    #: origins of web pages that may call the model API, as browsers write them; ("*",): any
    cors_origins: tuple[str, ...] = ()
    #: requests per second that each key may send to the chat; 0: any number
    chat_rate: float = 0.0
    #: the data path: keys, bodies, slots
    lanes: Lanes = field(default_factory=Lanes)
