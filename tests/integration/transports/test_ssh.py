"""Commands over a real OpenSSH, through noise, jumps, forged keys, dropped connections and hosts that hang."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.transports.conftest import to
from tests.support.embedded import wait_until
from tests.support.freezing import freeze
from tests.support.sshd import Sshd, masters_in
from workers.transports.base import MOST_OUTPUT_BYTES, TransportError
from workers.transports.ssh import SshTransport

MANY = 200


def test_a_command_gets_its_words_and_input_and_gives_its_streams_and_code(transport: SshTransport) -> None:
    nasty = "$(id) `id` \"x\" 'y' \\ \\n !! \n \t é \udcff"
    done = transport.run(["sh", "-c", 'cat; printf "%s" "$1" >&2; exit 3', "sh", nasty], stdin=b"\0in\xff\n")
    assert (done.code, done.stdout) == (3, b"\0in\xff\n")
    assert done.stderr.decode("utf-8", "surrogateescape") == nasty


def test_a_signal_and_a_missing_program_are_codes(transport: SshTransport) -> None:
    assert transport.run(["sh", "-c", "kill -9 $$"]).code == 128 + signal.SIGKILL
    assert transport.run(["no-such-program-at-all"]).code == 127
    assert transport.run([str(Path(__file__))]).code == 126
    assert transport.run(["sh", "-c", "exit 255"]).code == 255
    assert transport.run(["exit"]).code == 127, "a word that only a shell knows"


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/bin/tcsh", "/usr/bin/fish", "/bin/zsh"])
def test_the_login_shell_may_be_any(own_host: Sshd, shell: str) -> None:
    if not os.path.exists(shell):
        pytest.skip(f"no {shell} on this machine")
    (own_host.folder / "shell").write_text(shell)
    done = to(own_host).run(["printf", "%s|", "it's", "a\\b", "c!d\ne"])
    assert (done.code, done.stdout, done.stderr) == (0, b"it's|a\\b|c!d\ne|", b"")


@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "/bin/true", "/bin/false"])
def test_a_login_that_runs_no_commands_is_told_as_that(own_host: Sshd, shell: str) -> None:
    (own_host.folder / "shell").write_text(shell)
    with pytest.raises(TransportError, match=r"login shell of far .* before our command; it said: .*start-up"):
        to(own_host).run(["true"])


def test_many_commands_side_by_side_use_one_connection(far_host: Sshd, transport: SshTransport) -> None:
    transport.run(["true"])
    before = far_host.logins()
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda number: transport.run(["echo", str(number)], timeout_s=60).stdout, range(MANY)))
    assert seen == [f"{number}\n".encode() for number in range(MANY)]
    assert far_host.logins() == before


def test_more_at_once_than_the_host_allows_wait_their_turn(own_host: Sshd) -> None:
    transport = to(own_host)
    with ThreadPoolExecutor(30) as pool:
        seen = list(pool.map(lambda _: transport.run(["sleep", "0.2"], timeout_s=60).code, range(30)))
    assert seen == [0] * 30


def test_a_connection_serves_every_process_of_the_node(own_host: Sshd) -> None:
    children = [_fork(lambda: to(own_host).run(["true"], timeout_s=30)) for _ in range(5)]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 5
    assert to(own_host).run(["true"]).code == 0
    assert own_host.logins() <= 2


def test_what_a_command_leaves_running_is_not_waited_for(transport: SshTransport) -> None:
    done = transport.run(["sh", "-c", "sleep 60 & echo $!"], timeout_s=20)
    os.kill(int(done.stdout), signal.SIGKILL)


def test_huge_output_comes_whole_or_not_at_all(transport: SshTransport) -> None:
    size = MOST_OUTPUT_BYTES - 1000
    assert len(transport.run(["head", "-c", str(size), "/dev/zero"], timeout_s=60).stdout) == size
    with pytest.raises(TransportError, match="more than"):
        transport.run(["cat", "/dev/zero"], timeout_s=60)


def test_huge_input_goes_through(transport: SshTransport) -> None:
    data = os.urandom(5_000_000)
    assert transport.run(["cat"], stdin=data, timeout_s=60).stdout == data
    assert transport.run(["true"], stdin=data, timeout_s=60).code == 0, "a program need not read it"


def test_time_runs_out_and_the_connection_is_still_good(far_host: Sshd, transport: SshTransport) -> None:
    transport.run(["true"])
    before = far_host.logins()
    with pytest.raises(TransportError, match="took longer"):
        transport.run(["sleep", "30"], timeout_s=0.5)
    assert transport.run(["echo", "on"]).stdout == b"on\n"
    assert far_host.logins() == before


def test_a_jump_host_is_gone_through(far_host: Sshd) -> None:
    assert to(far_host, "far-jumped").run(["echo", "jumped"], timeout_s=20).stdout == b"jumped\n"


@pytest.mark.parametrize("strictness", ["", "StrictHostKeyChecking no", "StrictHostKeyChecking accept-new"])
def test_a_host_with_another_key_is_refused_whatever_the_configuration_allows(own_host: Sshd, strictness: str) -> None:
    own_host.config.write_text(f"{strictness}\n{own_host.config.read_text()}")
    with pytest.raises(TransportError, match=r"Host key verification failed.*once its owner confirms") as told:
        to(own_host, "far-forged").run(["true"])
    assert f"ssh-keygen -R '[127.0.0.1]:{own_host.port}' -f {own_host.folder}/forged_known_hosts; " in str(told.value)
    assert own_host.logins() == 0


def test_an_unknown_host_is_refused_unless_the_configuration_takes_new_ones(own_host: Sshd) -> None:
    known = own_host.folder / "known_hosts"
    kept = known.read_text()
    known.write_text("")
    with pytest.raises(TransportError, match=r"Host key verification failed; compare its key"):
        to(own_host).run(["true"])
    own_host.config.write_text(f"StrictHostKeyChecking accept-new\n{own_host.config.read_text()}")
    wait_until(lambda: _works(to(own_host)), 20, "the host being tried again")
    assert known.read_text().split()[-1] == kept.split()[-1]


def test_a_key_that_is_not_welcome_says_what_to_try(own_host: Sshd) -> None:
    (own_host.folder / "authorized_keys").write_text("")
    with pytest.raises(TransportError, match=r"Permission denied.*ssh -o BatchMode=yes"):
        to(own_host).run(["true"])


def test_a_host_that_is_down_is_asked_ever_less_often_and_found_when_it_is_back(own_host: Sshd) -> None:
    transport = to(own_host)
    own_host.stop()
    for _ in range(30):
        with pytest.raises(TransportError, match="cannot be reached"):
            transport.run(["true"])
    told = [_refusal(to(own_host)) for _ in range(2)]
    assert told[0] == told[1], "what is kept of it as a message holds no countdown"
    [record] = own_host.run_dir.glob("ssh-*.failed")
    kept = record.read_bytes()
    _refusal(to(own_host))
    assert record.read_bytes() == kept, "another process knows it too"
    own_host.start()
    wait_until(lambda: _works(transport), 40, "the host being tried again")


def test_a_dropped_connection_is_told_and_the_next_command_has_a_new_one(own_host: Sshd) -> None:
    transport = to(own_host)
    transport.run(["true"])
    with _cut_when_begun(own_host, began := own_host.folder / "began"), pytest.raises(TransportError, match="was lost"):
        transport.run(["sh", "-c", f"touch {began}; sleep 30"], timeout_s=30)
    assert transport.run(["echo", "again"], timeout_s=20).stdout == b"again\n"


def test_a_command_that_may_have_begun_is_never_given_twice(own_host: Sshd) -> None:
    transport, began = to(own_host), own_host.folder / "began"
    with _cut_when_begun(own_host, began), pytest.raises(TransportError):
        transport.run(["sh", "-c", f"echo x >> {began}; sleep 30"], timeout_s=30)
    assert began.read_text() == "x\n"


def test_a_frozen_host_costs_its_time_and_keeps_nobody_from_another(own_host: Sshd, far_host: Sshd) -> None:
    transport, other = to(own_host), to(far_host)
    transport.run(["true"])
    other.run(["true"])
    assert own_host.process is not None
    frozen = [*own_host.sessions(), *(child for one in own_host.sessions() for child in one.children())]
    freeze(own_host.process.pid, *(one.pid for one in frozen))
    waiting = threading.Thread(target=lambda: _works(transport))
    waiting.start()
    assert other.run(["echo", "other"]).stdout == b"other\n"
    assert waiting.is_alive()
    waiting.join()
    with pytest.raises(TransportError):
        transport.run(["true"], timeout_s=3)
    own_host.process.send_signal(signal.SIGCONT)
    wait_until(lambda: _works(transport), 60, "a new connection")


def test_a_frozen_or_killed_connection_is_replaced(own_host: Sshd) -> None:
    transport = to(own_host)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        transport.run(["true"], timeout_s=20)
        for master in masters_in(own_host.run_dir):
            master.send_signal(number)
        wait_until(lambda: _works(transport), 30, f"a new connection after signal {number}")
    assert len(masters_in(own_host.run_dir)) == 1, "the frozen one is gone"


def test_a_starter_that_dies_leaves_no_second_connection_in_use(own_host: Sshd) -> None:
    pid = _fork(lambda: to(own_host).run(["sleep", "30"], timeout_s=60))
    wait_until(lambda: masters_in(own_host.run_dir), 20, "a connection being made")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert to(own_host).run(["echo", "mine"], timeout_s=20).stdout == b"mine\n"


def test_nobody_else_can_use_the_connection(transport: SshTransport) -> None:
    transport.run(["true"])
    assert transport.master.socket.stat().st_mode & 0o077 == 0
    assert transport.master.socket.parent.stat().st_mode & 0o077 == 0


def test_secrets_of_the_worker_do_not_go_along(transport: SshTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTLER_DATABASE_URL", "postgresql://secret")
    assert b"secret" not in transport.run(["env"]).stdout
    for master in masters_in(transport.master.socket.parent):
        assert "HOSTLER_DATABASE_URL" not in master.environ()


def _fork(act: Callable[[], object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        act()
        status = 0
    finally:
        os._exit(status)


def _refusal(transport: SshTransport) -> str:
    with pytest.raises(TransportError) as told:
        transport.run(["true"])
    return str(told.value)


def _works(transport: SshTransport) -> bool:
    try:
        return transport.run(["true"], timeout_s=5).code == 0
    except TransportError:
        return False


@contextmanager
def _cut_when_begun(host: Sshd, began: Path) -> Iterator[None]:
    """The connection is cut once the file is there."""

    def cut() -> None:
        deadline = time.monotonic() + 20
        while not began.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        host.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        yield
    finally:
        cutter.join()
