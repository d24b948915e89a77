"""Become HAProxy: ``python -m app.gateway.proxy``, run by supervisord.

The configuration is written and checked first; then this process *is* HAProxy's master, so that nothing of ours stands
between it and the supervisor, and neither the agent's death nor its restart touches a connection.
"""

from __future__ import annotations

import base64
import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

from app.domain.origins import parse_origins
from app.gateway import keys, maps
from app.gateway.access_log import open_pipe
from app.gateway.assignment import servers_of
from app.gateway.certificate import write_certificate
from app.gateway.commands import Place
from app.gateway.config import Options, render
from app.gateway.config.lanes import Lanes
from app.gateway.config.slots import check_words
from app.gateway.files import read_file, write_file
from app.gateway.places import CERTIFICATE, CONFIG, Places, socket_address
from app.gateway.snapshot import from_json
from app.gateway.writing import file_servers
from app.log import configure
from app.settings import Settings, registered_silence_s
from app.stack.environment import allow_open_files
from app.stack.errors import PartFailed, StackError
from app.stack.haproxy import haproxy_program
from app.stack.layout import MASTER_SOCKET, Layout, ensure_run_dir
from app.stack.processes import ROLE_MARK, STATE_MARK
from app.stack.secrets import engine_key, flower_password

#: Descriptors that no connection uses: listeners, pipes, logs, one poller per thread, checks of servers.
RESERVED_FILES = 1500
#: A request to the control API may wait as long as the settings say; the door is a little more patient.
PATIENCE_S = 60
#: More threads than this only cost memory: the engines behind are the limit.
MOST_THREADS = 8
_CHECK_S = 60

log = logging.getLogger(__name__)


def main() -> int:
    """Returns only when HAProxy cannot be started."""
    settings = Settings.load()
    configure(settings, "gateway")
    os.umask(0o077)
    allow_open_files()
    places = Places(Layout(settings.state_dir))
    try:
        program = haproxy_program(settings)
        make_folder(places)
        os.chdir(places.folder)
        write_certificate(settings, places)
        options = options_of(settings)
        write_config(program, places, render(options, _servers(places, options)))
    except StackError as error:
        log.error("%s", error)
        return 1
    # where HAProxy writes the access log; what it says otherwise goes on to the supervisor
    descriptor = open_pipe(places.access_pipe)
    os.dup2(descriptor, sys.stdout.fileno())
    os.close(descriptor)
    return os.execve(program, argv(program), environment(settings))  # noqa: S606  (becoming it is what this is for)


def argv(program: Path) -> list[str]:
    """Master and worker, in the foreground. Relative to the gateway's folder."""
    return [str(program), "-W", "-S", f"{socket_address(MASTER_SOCKET)},mode,600", "-f", CONFIG]


def environment(settings: Settings) -> dict[str, str]:
    """Complete: its marks, and none of the stack's secrets."""
    marks = {ROLE_MARK: os.environ.get(ROLE_MARK, "gateway"), STATE_MARK: str(settings.state_dir)}
    return {"PATH": os.defpath, "LANG": "C.UTF-8", "TZ": "UTC", **marks}


def options_of(settings: Settings) -> Options:
    """The options of this host."""
    credentials = f"hostler:{flower_password(settings)}".encode()
    return Options(
        host=settings.host,
        port=settings.port,
        certificate=CERTIFICATE if settings.tls_certificate else "",
        threads=settings.gateway_threads or min(len(os.sched_getaffinity(0)), MOST_THREADS),
        connections=connections(settings),
        max_body=settings.max_body,
        control_silence_s=int(settings.max_wait_s) + PATIENCE_S,
        unacknowledged_s=registered_silence_s(settings),
        cors_origins=parse_origins(settings.cors_origins),
        chat_rate=settings.chat_rate,
        flower_credentials=base64.b64encode(credentials).decode(),
        lanes=lanes_of(settings),
    )


def lanes_of(settings: Settings) -> Lanes:
    """The data path as the settings want it."""
    return Lanes(
        engine_key=engine_key(settings),
        slots=settings.gateway_routes,
        buffer_bytes=settings.gateway_buffer_bytes,
        connect_s=settings.gateway_connect_s,
        queue_s=settings.gateway_queue_s,
        queue=settings.gateway_queue,
        first_byte_s=settings.gateway_first_byte_s,
        tunnel_s=settings.gateway_tunnel_s,
        retries=settings.gateway_retries,
        check_s=settings.gateway_check_s,
        error_limit=settings.gateway_error_limit,
        fall=settings.gateway_fall,
    )


def place_of(lanes: Lanes) -> Place:
    """Where its files and sockets are, as HAProxy names them, and the words of every server's checks."""
    return Place(lanes.maps, lanes.relay.removeprefix("unix@"), check_words(lanes))


def _servers(places: Places, options: Options) -> dict[str, list[str]]:
    """What the agent routed last: it may not run yet, and the database may be away."""
    snapshot = from_json(read_file(places.table))
    return file_servers(servers_of(snapshot.table, snapshot.assignment), place_of(options.lanes))


def connections(settings: Settings) -> int:
    """How many the door holds at once. Each takes a descriptor on both sides; HAProxy refuses to start with more."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    fitting = max((soft - min(RESERVED_FILES, soft // 4)) // 2, 16)
    if settings.gateway_connections > fitting:
        log.warning(
            "HOSTLER_GATEWAY_CONNECTIONS=%d does not fit %d open files; %d connections are held; raise `ulimit -n`",
            settings.gateway_connections,
            soft,
            fitting,
        )
    return min(settings.gateway_connections or fitting, fitting)


def make_folder(places: Places) -> None:
    """The gateway's folder, that of its maps, and that of the sockets."""
    ensure_run_dir(places.layout.state_dir)
    for folder in (places.folder, places.maps):
        folder.mkdir(mode=0o700, exist_ok=True)
    # HAProxy starts with no map missing; the agent fills them
    for name in (*maps.NAMES, *keys.NAMES):
        (places.maps / name).touch(mode=0o600)


def write_config(program: Path, places: Places, text: str) -> None:
    """Write the configuration, once HAProxy itself says that it is good; the one before stays where it is not."""
    if read_file(places.config) == text:
        return
    draft = places.folder / f"{CONFIG}.new"
    write_file(draft, text)
    check(program, draft)
    draft.rename(places.config)


def check(program: Path, config: Path) -> None:
    """Raise PartFailed with HAProxy's words when it would not start with ``config``."""
    done = subprocess.run(
        [program, "-c", "-f", config.name],
        cwd=config.parent,
        env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_CHECK_S,
        check=False,
    )
    if done.returncode != 0:
        raise PartFailed(f"HAProxy refuses {config}: {done.stderr.strip()[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
