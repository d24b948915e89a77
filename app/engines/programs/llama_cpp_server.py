"""Serve one GGUF file with llama.cpp. ``python -I -S llama_cpp_server.py CONFIG.json``.

CONFIG holds ``model, alias, host, port`` and optional parameters; ``HOSTLER_ENGINE_KEY`` is demanded from callers.
Exit codes: 0 after SIGTERM or SIGINT, 2 for a config or model that cannot be used, 3 when the port cannot be bound.
"""

# ruff: noqa: T201  (what it prints is the attempt's log)
from __future__ import annotations

import os
import signal
import socket
import sys

TYPE_CHECKING = False  # importing typing would add to the start of each engine
if TYPE_CHECKING:
    from typing import Any


def main(path: str) -> None:
    import json

    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    key = os.environ.pop("HOSTLER_ENGINE_KEY", "")
    _check_model(config["model"])
    _check_port(config["host"], config["port"])
    _add_site_packages()
    import xllamacpp

    params = xllamacpp.CommonParams()
    _fill(params, config, key)
    if "pooling" in config:
        params.pooling_type = getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{config['pooling'].upper()}")
    # the default action (die at once) holds while the model loads: the load keeps Python from running any handler
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:
        _give_up(2, f"llama.cpp could not load {config['model']}; the lines above say why")
    print(f"llama-cpp: {config['alias']} is served at {server.listening_address}", flush=True)
    _wait_for_signal()
    # tearing the server down waits for streams in flight; nothing of it needs saving
    print("llama-cpp: stopped by signal", flush=True)
    os._exit(0)


def _check_model(path: str) -> None:
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except OSError as error:
        _give_up(2, f"cannot read model {path}: {error.strerror}")
    if magic != b"GGUF":
        _give_up(2, f"{path} is not a GGUF file (it starts with {magic!r})")


def _check_port(host: str, port: int) -> None:
    """Say so before a large model is loaded for nothing, and in one line."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            _give_up(3, f"cannot listen on {host}:{port}: {error.strerror}")


def _add_site_packages() -> None:
    """Only the folder itself: ``site`` would also run every .pth file, which costs more than the rest of the start."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(sys.executable)))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = os.path.join(root, "lib", version, "site-packages")
    if os.path.isdir(os.path.join(folder, "xllamacpp")):
        sys.path.append(folder)
    else:
        import site

        site.main()


def _fill(params: Any, config: dict[str, Any], key: str) -> None:
    settings = dict(config)
    params.model.path = settings.pop("model")
    params.model_alias = {settings.pop("alias")}
    params.hostnames = [settings.pop("host")]
    params.api_keys = [key] if key else []
    params.endpoint_metrics = True
    params.ui = False
    # any one request may use the whole context, as it would with a single sequence
    params.kv_unified = True
    # whoever may call it holds the key; no browser has business here
    params.cors_origins = ""
    if "threads" in settings:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.pop("threads")
    if "seed" in settings:
        params.sampling.seed = settings.pop("seed")
    settings.pop("pooling", None)
    for name, value in settings.items():
        setattr(params, name, value)


def _wait_for_signal() -> None:
    # a thread of the server may take the signal, so the main thread waits on a pipe and not in pause()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    os.read(reader, 1)


def _give_up(code: int, message: str) -> None:
    print(f"llama-cpp: {message}", file=sys.stderr, flush=True)
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
