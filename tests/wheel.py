"""Whether what is tested is an installed wheel, by ``RTCORE_TEST_WHEEL``, and not the sources.

What is in a wheel is the same whatever the example, the event loop and the host: one of each shows what is missing.
"""

from __future__ import annotations

import os

__all__ = ["TESTS_WHEEL"]

TESTS_WHEEL = os.environ.get("RTCORE_TEST_WHEEL") == "1"
