"""The door's certificate: copied to where HAProxy reads it, and given to a running HAProxy when it was renewed.

Through the runtime socket, without a reload: no connection notices, and no second process lives on for old ones.
"""

from __future__ import annotations

import logging
import ssl
import tempfile
import threading
from pathlib import Path

from app.gateway.files import read_file, write_file
from app.gateway.places import CERTIFICATE, Places
from app.haproxy.runtime import HaproxyAway, Session
from app.settings import Settings
from app.stack.errors import PartFailed

#: Between two looks at the files; they are renewed once in weeks.
EVERY_S = 5.0

log = logging.getLogger(__name__)


class Unusable(Exception):
    """The files of the certificate cannot be served. What was served before goes on."""


def write_certificate(settings: Settings, places: Places) -> None:
    """Certificate and key in one file, as HAProxy reads them; none where TLS is off.

    Files that cannot be read or served leave the copy of an earlier start. Raises PartFailed when there is none.
    """
    if not settings.tls_certificate:
        places.certificate.unlink(missing_ok=True)
        return
    try:
        text = wanted(settings)
    except Unusable as error:
        if not places.certificate.exists():
            raise PartFailed(str(error)) from error
        log.error("%s; the one before is served", error)
        return
    if read_file(places.certificate) != text:
        write_file(places.certificate, text)


def wanted(settings: Settings) -> str:
    """The PEM text that the settings' files come to. Raises Unusable."""
    try:
        parts = [Path(path).read_text().strip() for path in (settings.tls_certificate, settings.tls_key)]
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(f"the certificate cannot be read: {error}; name PEM files by HOSTLER_TLS_CERTIFICATE") from error
    # no empty lines: in a command one ends the text
    text = "\n".join(line for line in "\n".join(parts).splitlines() if line.strip()) + "\n"
    with tempfile.NamedTemporaryFile("w", prefix="hostler-tls-") as file:
        file.write(text)
        file.flush()
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file.name, password="")
        except (ssl.SSLError, ValueError) as error:
            raise Unusable(
                f"{settings.tls_certificate} and {settings.tls_key} do not belong together: {error}"
            ) from error
    return text


def renew(settings: Settings, places: Places) -> bool:
    """Have HAProxy serve the files as they are now; whether they had changed. Raises Unusable, HaproxyAway, OSError."""
    text = wanted(settings)
    if read_file(places.certificate) == text:
        return False
    with Session(places.layout.haproxy_socket) as session:
        for line, payload in ((f"set ssl cert {CERTIFICATE}", text), (f"commit ssl cert {CERTIFICATE}", "")):
            answer = session.ask(line, payload)
            if not answer.startswith(("Transaction created", "Transaction updated", "Committing")):
                raise HaproxyAway(f"HAProxy refuses the certificate: {answer}")
    # last: what was not served is looked at again
    write_file(places.certificate, text)
    return True


class Renewer(threading.Thread):
    """Looks at the certificate's files and has them served when they change."""

    def __init__(self, settings: Settings, places: Places) -> None:
        super().__init__(name="certificate", daemon=True)
        self._settings, self._places = settings, places
        self._over = threading.Event()
        self._said = ""

    def stop(self) -> None:
        self._over.set()

    def run(self) -> None:
        while self._settings.tls_certificate and not self._over.wait(EVERY_S):
            try:
                if renew(self._settings, self._places):
                    log.info("the renewed certificate is served")
                self._said = ""
            except (Unusable, HaproxyAway, OSError) as error:
                # in the middle of a renewal too, when one file is new and the other is not yet
                if str(error) != self._said:
                    log.warning("%s; the one before is served", error)
                self._said = str(error)
