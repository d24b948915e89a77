"""An engine that says numbers as long as it runs: ``talker.py HOST PORT FOLDER``. Standard library; run with ``-I -S``.

It prints ``talks begin TOKEN``, then ``talks TOKEN NUMBER``, from 0 on, and serves 200 for everything meanwhile. After
each number it notes in ``FOLDER/<name of its attempt>`` how far it is, for who wants to know what a log must hold.
"""

import os
import signal
import socket
import sys
import threading
import time

EVERY_S = 0.02
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def main(host: str, port: str, folder: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = socket.create_server((host, int(port)))
    threading.Thread(target=serve, args=(server,), daemon=True).start()
    note = os.open(os.path.join(folder, os.environ["HOSTLER_MARK"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    token = os.urandom(4).hex()
    os.write(1, f"talks begin {token}\n".encode())
    number = 0
    while True:
        try:
            os.write(1, f"talks {token} {number}\n".encode())
        except BrokenPipeError:
            # who kept the output is gone: what is said from now on nobody hears, and it serves on
            signal.pause()
        os.pwrite(note, f"{token} {number:9}\n".encode(), 0)
        number += 1
        time.sleep(EVERY_S)


def serve(server: socket.socket) -> None:
    while True:
        link, _ = server.accept()
        with link:
            try:
                link.settimeout(1)
                link.recv(65536)
                link.sendall(_ANSWER)
            except OSError:
                continue


if __name__ == "__main__":
    main(*sys.argv[1:])
