"""A process that works for another: it ends with it, and in order when it is told to.

This is the first that such a process runs, before it imports what takes seconds.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any

from recon_search import interruption

steps: Queue[Any] | None = None
"""In which a worker tells how it gets on."""


def serve(parent: int, stop: Event, told: Queue[Any], call: bytes) -> None:
    """Follow a process and do what it asks for.

    Args:
        parent: see `follow`.
        stop: see `follow`.
        told: see `follow`.
        call: a function and its arguments, pickled by the parent: so their imports come second.
    """
    follow(parent, stop, told)
    function, arguments = pickle.loads(call)
    function(*arguments)


def follow(parent: int, stop: Event, told: Queue[Any] | None = None) -> None:
    """Follow the process that this one works for.

    Args:
        parent: its number.
        stop: set to let this process end its step, write a checkpoint and end.
        told: becomes `steps`.
    """
    global steps
    steps = told
    interruption.listen()

    def watch() -> None:
        while os.getppid() == parent:
            if stop.is_set():
                interruption.tell(signal.SIGINT)
            time.sleep(0.1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
