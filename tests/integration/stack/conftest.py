from __future__ import annotations

from tests.support.accounts import open_tmp

__all__ = ["open_tmp"]
