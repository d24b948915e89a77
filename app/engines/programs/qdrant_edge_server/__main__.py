"""``python -I -S .../qdrant_edge_server CONFIG.json``: found by its place, nothing else of Hostler is."""

from __future__ import annotations

import importlib
import os
import sys
import types

# the folder of all programs, as a package: its parent on the path would offer modules named as those of wheels
programs = types.ModuleType("programs")
programs.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
sys.modules["programs"] = programs
importlib.import_module("programs.qdrant_edge_server.main").main(sys.argv[1])
