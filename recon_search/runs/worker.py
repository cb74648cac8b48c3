"""A process that works for another: it ends with it, and in order when it is told to.

This is the first that such a process runs, before it imports what takes seconds.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any, TypeAlias

from recon_search import interruption

Call: TypeAlias = tuple[Callable[..., None], tuple[Any, ...]]

steps: Queue[Any] | None = None
"""In which a worker tells how it gets on."""


def start(context: SpawnContext, stop: Event, told: Queue[Any], call: Call) -> SpawnProcess:
    """Start a process that works for this one.

    What it is called with may be large. It is sent apart from what starts the process, which would
    wait for ever for one that dies before it has read that.

    Args:
        context: of the process.
        stop: see `follow`.
        told: see `follow`.
        call: a function and its arguments.
    """
    content = pickle.dumps(call)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=serve, args=(os.getpid(), stop, told, receiver))
    process.start()
    receiver.close()  # so that sending fails where nobody is left to read

    def send() -> None:
        with contextlib.suppress(OSError), sender:
            sender.send_bytes(content)

    threading.Thread(target=send, daemon=True).start()
    return process


def serve(parent: int, stop: Event, told: Queue[Any], receiver: Connection) -> None:
    """Follow a process and do what it asks for.

    Args:
        parent: see `follow`.
        stop: see `follow`.
        told: see `follow`.
        receiver: of the pickled call, whose imports come second.
    """
    follow(parent, stop, told)
    function, arguments = pickle.loads(receiver.recv_bytes())
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
    interruption.listen(notes=True)

    def watch() -> None:
        while os.getppid() == parent:
            if stop.is_set():
                interruption.tell(signal.SIGINT)
            time.sleep(0.1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
