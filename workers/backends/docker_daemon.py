"""One daemon, Docker's or Podman's, by its socket: what we ask of it, and its errors in ours."""

from __future__ import annotations

import base64
import json
import os
import struct
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from workers.backends.base import BackendError, BackendUnavailable, LaunchRefused
from workers.backends.docker_conmon import end_waiting
from workers.backends.docker_options import SOCKETS

if TYPE_CHECKING:
    from docker import APIClient

T = TypeVar("T")
#: Of a Go file mode.
_FOLDER, _EXECUTABLE = 1 << 31, 0o111
#: To ask which version of the API it speaks; that question carries none.
_ANY_API = "1.41"
#: Before each piece of output: which stream it is of, and its size.
_FRAME = struct.Struct(">BxxxL")
#: What a frame may be of: standard input, output and error.
_STREAMS = range(3)
#: Of what stands in the place of a frame so much is told.
_LONGEST_WORDS = 500
#: A busy daemon may take so long for each step of a launch; looks are shorter.
LAUNCH_S = 15.0
#: A pull may be silent for so long, while one big layer is unpacked.
PULL_SILENCE_S = 600.0


class NameTaken(BackendError):
    """There is a container of that name."""


@dataclass(frozen=True)
class Version:
    """``name`` is ``docker`` or ``podman``."""

    name: str
    number: str

    @property
    def is_podman(self) -> bool:
        return self.name == "podman"

    @property
    def parts(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.number.split("-")[0].split(".")[:2] if part.isdigit())


class Daemon:
    """Each call may raise BackendUnavailable: then nothing is known, or known to be done.

    The SDK is imported at the first call. No connection is kept: a fork or another thread would share it.
    """

    def __init__(self, socket: str = "") -> None:
        self._socket = socket
        #: the version of its API, once it has said it
        self._api = ""

    @property
    def socket(self) -> str:
        """The path of its socket: the one that was named, or the first of the usual ones that is there."""
        named = self._socket.removeprefix("unix://")
        return named or next((path for path in SOCKETS if os.path.exists(path)), SOCKETS[0])

    def is_there(self) -> bool:
        """Whether there is a socket at all; a host without one has never had a container of ours."""
        return os.path.exists(self.socket)

    def version(self, timeout_s: float = LAUNCH_S) -> Version:
        told = self._ask(lambda client: client.version(), timeout_s)
        names = {one.get("Name", "") for one in told.get("Components") or ()}
        name = "podman" if "Podman Engine" in names else "docker"
        return Version(name, str(told.get("Version", "")))

    def info(self, timeout_s: float = LAUNCH_S) -> dict[str, Any]:
        return self._ask(lambda client: client.info(), timeout_s)

    def find(self, container: str, timeout_s: float = 5) -> dict[str, Any] | None:
        """What it knows of the container of that name or id; None when there is none."""
        return self._ask_or_none(lambda client: client.inspect_container(container), timeout_s)

    def containers(self, labels: Mapping[str, str | None], timeout_s: float = 5) -> list[dict[str, Any]]:
        """All that carry the labels, running or not; a label of value None may have any."""
        wanted = [name if value is None else f"{name}={value}" for name, value in labels.items()]
        return self._ask(lambda client: client.containers(all=True, filters={"label": wanted}), timeout_s)

    def image(self, name: str, timeout_s: float = LAUNCH_S) -> dict[str, Any] | None:
        """What it knows of an image that it has; None when it would have to be pulled."""
        return self._ask_or_none(lambda client: client.inspect_image(name), timeout_s)

    def pull(self, image: str) -> Iterator[dict[str, Any]]:
        """Pull it; yields what the daemon tells of its progress. Raises LaunchRefused when it cannot be pulled."""
        from docker.errors import APIError

        with self._translated(PULL_SILENCE_S), self._client(PULL_SILENCE_S) as client:
            try:
                for told in client.pull(image, stream=True, decode=True):
                    if told.get("error"):
                        raise LaunchRefused(f"image {image} cannot be pulled: {told['error']}")
                    yield told
            except APIError as error:
                raise LaunchRefused(f"image {image} cannot be pulled: {_words(error)}") from error

    def create(self, name: str, config: Mapping[str, Any], timeout_s: float = 20) -> str:
        """The id of a new container, not started. Raises NameTaken, LaunchRefused."""
        try:
            made = self._ask(lambda client: client.create_container_from_config(dict(config), name), timeout_s)
        except _Refused as refused:
            # Docker says it by its status, Podman only in words
            if refused.status == 409 or "already in use" in str(refused):
                raise NameTaken(str(refused)) from refused
            raise LaunchRefused(f"the container cannot be made: {refused}") from refused
        return str(made["Id"])

    def start(self, container: str, timeout_s: float = 20) -> None:
        """Raises LaunchRefused when it cannot run; then it does not."""
        try:
            self._ask(lambda client: client.start(container), timeout_s)
        except _Refused as refused:
            raise LaunchRefused(f"the container cannot be started: {refused}") from refused

    def kill(self, container: str, signal: str, timeout_s: float = 5) -> None:
        """Signal its first process. Raises BackendError when that cannot be done: it may have ended."""
        self._ask(lambda client: client.kill(container, signal), timeout_s)

    def end(self, container: str, timeout_s: float = 5) -> None:
        """Kill it and know its end, also where the daemon does not know that it runs."""
        self._ask(lambda client: client.stop(container, timeout=0), timeout_s)

    def unpause(self, container: str, timeout_s: float = 5) -> None:
        self._ask(lambda client: client.unpause(container), timeout_s)

    def remove(self, container: str, *, force: bool = False, timeout_s: float = 20) -> None:
        """Remove it; with ``force`` also what runs. That it is not there is as good."""
        self._ask_or_none(lambda client: client.remove_container(container, v=True, force=force), timeout_s)

    def remove_abandoned(self, container: str, timeout_s: float = 20) -> None:
        """The same of one that has ended, and that its daemon believes to run. Podman may find out as it is asked, and
        then refuses once to end what has ended."""
        try:
            self.remove(container, force=True, timeout_s=timeout_s)
        except _Refused:
            self.remove(container, force=True, timeout_s=timeout_s)

    def remove_unstarted(self, container: str, *, force: bool = False) -> None:
        """The same by its id, of one whose program was never begun. A Podman that was killed while it made its first
        process knows nothing of that one, which would wait for ever."""
        self.remove(container, force=force)
        end_waiting(container)

    def look_at(self, container: str, path: str, timeout_s: float = LAUNCH_S) -> dict[str, Any] | None:
        """``isDir``, ``executable`` and ``linkTarget`` of a file of its image; None when there is none."""
        with self._translated(timeout_s), self._client(timeout_s) as client:
            url = f"{client.base_url}/v{client.api_version}/containers/{quote(container)}/archive"
            answer = client.head(url, params={"path": path}, timeout=timeout_s)
        told = answer.headers.get("X-Docker-Container-Path-Stat")
        if answer.status_code != 200 or told is None:
            return None
        seen = json.loads(base64.b64decode(told))
        mode = int(seen.get("mode", 0))
        return {"isDir": bool(mode & _FOLDER), "executable": bool(mode & _EXECUTABLE), "linkTarget": seen["linkTarget"]}

    def log(self, container: str, timeout_s: float = 5, **wanted: Any) -> Generator[bytes, None, None]:
        """Pieces of its output as the daemon kept them, oldest first; nothing when there is no such container.

        Not by the SDK, whose streams cannot be left before their end without a socket that nobody closes.
        """
        params = {"stdout": 1, "stderr": 1, **wanted}
        with self._translated(timeout_s), self._client(timeout_s) as client:
            url = f"{client.base_url}/v{client.api_version}/containers/{quote(container)}/logs"
            with client.get(url, params=params, stream=True, timeout=timeout_s) as answer:
                if answer.status_code == 404:
                    return
                if answer.status_code != 200:
                    raise BackendError(f"the output of {container} cannot be read: {answer.text[:500]}")
                while len(header := answer.raw.read(_FRAME.size)) == _FRAME.size:
                    stream, size = _FRAME.unpack(header)
                    if stream not in _STREAMS:
                        # Podman's words when the container went meanwhile: it had begun to answer
                        said = (header + answer.raw.read(_LONGEST_WORDS)).decode("utf-8", "replace")
                        raise BackendError(f"the output of {container} cannot be read: {said.strip()}")
                    yield answer.raw.read(size)

    def _ask(self, act: Callable[[APIClient], T], timeout_s: float) -> T:
        with self._translated(timeout_s), self._client(timeout_s) as client:
            return act(client)

    def _ask_or_none(self, act: Callable[[APIClient], T], timeout_s: float) -> T | None:
        try:
            return self._ask(act, timeout_s)
        except _Refused as refused:
            if refused.status == 404:
                return None
            raise

    @contextmanager
    def _client(self, timeout_s: float) -> Iterator[APIClient]:
        from docker import APIClient

        if not self.is_there():
            raise BackendUnavailable(f"there is no container daemon: {self.socket} does not exist")
        if not self._api:
            # not by the SDK's own "auto", which leaves its socket open when nobody answers
            with closing(APIClient(f"unix://{self.socket}", version=_ANY_API, timeout=timeout_s)) as client:
                self._api = str(client.version(api_version=False)["ApiVersion"])
        with closing(APIClient(f"unix://{self.socket}", version=self._api, timeout=timeout_s)) as client:
            yield client

    @contextmanager
    def _translated(self, timeout_s: float) -> Iterator[None]:
        from docker.errors import APIError, DockerException
        from requests import RequestException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except APIError as error:
            raise _Refused(error) from error
        except (DockerException, RequestException, HTTPError) as error:
            # another one, or another version of it, may answer next
            self._api = ""
            why = _why_silent(error, timeout_s)
            raise BackendUnavailable(f"the container daemon at {self.socket} does not answer{why}") from error


class _Refused(BackendError):
    """The daemon said no."""

    def __init__(self, error: Any) -> None:
        super().__init__(_words(error))
        self.status: int | None = error.response.status_code if error.response is not None else None


def _why_silent(error: BaseException, timeout_s: float) -> str:
    """What lies under the words of the libraries: that the time ran out, or what the system says of the socket."""
    from requests import Timeout
    from urllib3.exceptions import TimeoutError as ReadTimeout

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (Timeout, ReadTimeout, TimeoutError)):
            return f" within {timeout_s:g} s"
        if isinstance(cause, OSError) and cause.errno and cause.strerror:
            return f": {cause.strerror}"
        cause = cause.__cause__ or cause.__context__
    return f": {error}"


def _words(error: Any) -> str:
    return str(error.explanation or error)
