"""``python -I -S .../mock_server CONFIG.json``: the package is found by its place, nothing else of Hostler is."""

from __future__ import annotations

import importlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
importlib.import_module("mock_server.main").main(sys.argv[1])
