"""TCP ports of this host: free, taken and by whom, and which addresses are beyond loopback."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl

import psutil

from app.settings import BadSetting, Settings
from app.stack.errors import PortInUse, StackError, TooOpen

#: Below it a key could be guessed by whoever can reach the port.
OPEN_KEY_CHARACTERS = 32


def check_address(settings: Settings) -> None:
    """Raise TooOpen for an address beyond loopback with neither TLS nor a long key of the user's own, and BadSetting
    for a certificate that cannot be served."""
    _check_certificate(settings)
    if is_loopback(settings.host) or settings.tls_certificate or len(settings.api_key) >= OPEN_KEY_CHARACTERS:
        return
    raise TooOpen(
        f"--host {settings.host} is reachable from other machines; set HOSTLER_API_KEY to a key of "
        f"{OPEN_KEY_CHARACTERS} characters or more, or HOSTLER_TLS_CERTIFICATE and HOSTLER_TLS_KEY"
    )


def _check_certificate(settings: Settings) -> None:
    certificate, key = settings.tls_certificate, settings.tls_key
    if bool(certificate) != bool(key):
        raise BadSetting("TLS needs both HOSTLER_TLS_CERTIFICATE and HOSTLER_TLS_KEY; set the other one too")
    for name, path in (("HOSTLER_TLS_CERTIFICATE", certificate), ("HOSTLER_TLS_KEY", key)):
        try:
            if path:
                open(path, "rb").close()
        except OSError as error:
            raise BadSetting(f"{name}={path}: {error.strerror}; name a PEM file that can be read") from error
    try:
        if certificate:
            # a key with a passphrase would be asked for on the terminal
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise BadSetting(
            f"{certificate} and {key} are no certificate and its key: {error}; both must be PEM, without a passphrase"
        ) from error


def check_free(host: str, port: int) -> None:
    """Raise PortInUse, naming the process when it can be seen, or StackError for an address that is not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # as HAProxy binds: connections of a server that just ended are no obstacle
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except PermissionError as error:
            raise StackError(f"only root may listen on port {port}; choose --port 1024 or above") from error
        except socket.gaierror as error:
            raise StackError(
                f"there is no address {host}: {error.strerror}; give --host an address of this host"
            ) from error
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise StackError(f"cannot listen on {host}: {error.strerror}; choose another --host") from error
            holder = listener_of(port)
            who = f" by {holder}" if holder else ""
            raise PortInUse(f"port {port} of {host} is in use{who}; stop that, or choose another --port") from error


def listener_of(port: int) -> str | None:
    """``NAME (pid N)`` of who listens on the port, if it can be seen."""
    for connection in psutil.net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.NoSuchProcess:
                continue
    return None


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def reachable_host(host: str) -> str:
    """The address to connect to for one that a server listens on."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def url_of(settings: Settings) -> str:
    """Where this host reaches the API."""
    host = reachable_host(settings.host)
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port}"
