"""What a launch says of the job that it may share: which one fits, and one to submit where there is none."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import Any

from app.domain.routing import SERVICE_LABEL
from app.domain.slurm_shared import DEFAULT_STAY_S, key_of, limit_s, mark_of_folder, render_shared, seats_of
from workers.backends.base import Launch
from workers.backends.slurm_asking import packed, packed_text, share_program
from workers.backends.slurm_seal import public_of
from workers.backends.slurm_seats import NUMBER_LATER, SHARED


def share_of(launch: Launch, options: Mapping[str, Any], root: str, opens: str) -> dict[str, Any]:
    """For the request; ``opens`` is the key to the attempt's own secrets. Raises NoDirective."""
    namespace = launch.name.removesuffix(f"-{launch.replica_id}-{launch.attempt}")
    gpus, nonce, key = len(launch.gpus), secrets.token_hex(16), secrets.token_hex(32)
    share = mark_of_folder(root) + key_of(namespace, launch.labels.get(SERVICE_LABEL, ""), options, gpus)
    name = f"{namespace}-shared-{share}-{NUMBER_LATER}"
    script = render_shared(name, nonce, os.path.join(root, SHARED, f"{share}-{NUMBER_LATER}"), gpus, options, key)
    plan = {
        "nonce": nonce,
        "job_name": name,
        "seats": seats_of(options),
        "gpus": gpus,
        "stay_s": options.get("job_stay_s", DEFAULT_STAY_S),
        "limit_s": limit_s(options),
        "public": public_of(key.encode()),
    }
    files = {"share.pyz": packed(share_program()), "script": packed_text(script.replace(key, ""))}
    return {"key": share, "opens": opens, "plan": plan, "files": files, "script": packed_text(script)}
