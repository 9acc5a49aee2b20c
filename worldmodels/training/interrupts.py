"""Signals that ask a run to stop."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interrupts:
    """Turns the first SIGTERM or SIGINT into a request; a second one does what it always did."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._request) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, _: Any) -> None:
        self.number = number
        signal.signal(number, self._before[number])
