"""SIGTERM and Ctrl-C as a wish to stop after the step in progress."""

import os
import signal
import threading
from types import FrameType
from typing import Any

STOPPED = 130  # exit status of a process that a signal asked to stop, and that can be continued


class StopSignals:
    """A context in which the first SIGTERM or Ctrl-C sets `requested`; a second Ctrl-C aborts at once.

    Data workers forked inside it inherit the handlers: there, Ctrl-C is ignored (the run needs them for its last step)
    and SIGTERM still ends the process. Off the main thread Python cannot handle signals, and nothing is changed.
    """

    def __init__(self) -> None:
        self.requested = False
        self._owner = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            if number == signal.SIGTERM:
                os._exit(128 + number)
        elif self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
