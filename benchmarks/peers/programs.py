"""How each peer is started, on one core, with the two upstreams behind it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.peers.base import Gateway, program
from benchmarks.peers.venvs import venv
from benchmarks.stack import free_port
from benchmarks.upstream import MODEL
from tests.support.venvs import NotInstalled

KEY = "sk-bench-0123456789abcdef01234567"
_NGINX = """
daemon off;
pid {folder}/pid;
error_log {folder}/errors warn;
worker_processes 1;
worker_rlimit_nofile 16384;
events {{ worker_connections 8000; }}
http {{
    access_log off;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    keepalive_requests 100000000;
    upstream engines {{ least_conn; {servers} keepalive 1024; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://engines; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


def nginx(core: int, upstreams: Sequence[int]) -> AbstractContextManager[Gateway]:
    """A plain proxy: no keys, no limits, no look at the body. Raises NotInstalled without nginx."""
    binary = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if binary is None:
        raise NotInstalled("there is no nginx; install Debian's (apt-get install nginx)")

    def argv(folder: Path, port: int) -> list[str]:
        servers = " ".join(f"server 127.0.0.1:{upstream};" for upstream in upstreams)
        config = folder / "nginx.conf"
        # root's worker would be somebody else, who may not enter this folder
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(user + _NGINX.format(folder=folder, port=port, servers=servers))
        return [binary, "-c", str(config)]

    return program("nginx", core, argv)


def sglang_router(core: int, upstreams: Sequence[int]) -> AbstractContextManager[Gateway]:
    """Least loaded of two, as its default would read bodies for a cache that no upstream has."""
    python = venv("sglang-router") / "bin" / "python"
    launch = [str(python), "-m", "sglang_router.launch_router", "--log-level", "error"]
    return program("sglang-router", core, lambda _, port: [*launch, *_routed(port, upstreams)])


def vllm_router(core: int, upstreams: Sequence[int]) -> AbstractContextManager[Gateway]:
    binary = venv("vllm-router") / "bin" / "vllm-router"
    return program(
        "vllm-router", core, lambda _, port: [str(binary), "--log-level", "error", *_routed(port, upstreams)]
    )


def litellm(core: int, upstreams: Sequence[int]) -> AbstractContextManager[Gateway]:
    """One worker process, one key, no database: the least that it can be."""
    binary = venv("litellm") / "bin" / "litellm"

    def argv(folder: Path, port: int) -> list[str]:
        config = folder / "config.yaml"
        config.write_text(_litellm_config(upstreams))
        return [str(binary), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]

    environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "NO_PROXY": "*"}
    return program("litellm", core, argv, environ, {"Authorization": f"Bearer {KEY}"})


def _routed(port: int, upstreams: Sequence[int]) -> list[str]:
    urls = [f"http://127.0.0.1:{upstream}" for upstream in upstreams]
    words = ["--host", "127.0.0.1", "--port", str(port), "--policy", "power_of_two"]
    words += ["--prometheus-port", str(free_port()), "--max-concurrent-requests", "4096", "--queue-size", "4096"]
    return [*words, "--worker-urls", *urls]


def _litellm_config(upstreams: Sequence[int]) -> str:
    lines = ["model_list:"]
    for upstream in upstreams:
        where = f'api_base: "http://127.0.0.1:{upstream}/v1"'
        lines.append(f"  - {{model_name: {MODEL}, litellm_params: {{model: openai/{MODEL}, {where}, api_key: none}}}}")
    lines += ["router_settings: {routing_strategy: least-busy}", "litellm_settings: {telemetry: false}"]
    return "\n".join([*lines, f"general_settings: {{master_key: {KEY}}}"]) + "\n"
