"""Programs that stand in for engines that no test machine has. Product code knows nothing of them."""

from __future__ import annotations

import sys
from pathlib import Path

_FOLDER = Path(__file__).parent
#: Command lines for HOSTLER_VLLM_COMMAND, HOSTLER_SGLANG_COMMAND, HOSTLER_LLAMA_COMMAND, HOSTLER_QDRANT_COMMAND.
VLLM = f"{sys.executable} -I -S {_FOLDER / 'vllm'} serve"
SGLANG = f"{sys.executable} -I -S {_FOLDER / 'sglang'}"
LLAMA_SERVER = f"{sys.executable} -I -S {_FOLDER / 'llama-server'}"
QDRANT = f"{sys.executable} -I -S {_FOLDER / 'qdrant'}"
