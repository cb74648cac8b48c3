"""One case: spoil a file, read it, look at what came of it, put the file back."""

import os
import random
import shutil
import signal
import stat
import warnings
from contextlib import contextmanager

from recon_search.errors import ReconSearchError
from tests.fuzz import mutations

PATIENCE = 60
"""Seconds until a case counts as hung; most take milliseconds."""


class Hung(BaseException):
    """A reader did not come back."""


@contextmanager
def in_time(seconds=PATIENCE):
    """Raise `Hung` where the block takes longer."""

    def ring(*_):
        raise Hung

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_case(name, subject, number, expected):
    """Return what is wrong with how a spoilt file was read, in words; empty if nothing is.

    Args:
        name: of the subject; with the number it gives the seed.
        subject: see `subjects.Subject`.
        number: of the case.
        expected: what `subject.read()` gives of the whole file.
    """
    own = random.Random(f"{name} {number}")
    path, content = subject.path, subject.path.read_bytes()
    before = _files(path.parent)
    is_sealed = False
    path.unlink()
    try:
        draw = own.random()
        if draw < 0.06:
            what = mutations.place(own, path)
        else:
            if draw < 0.35 or subject.kind == "bytes":
                spoilt, what = mutations.spoil(own, content)
            else:
                is_sealed = draw > 0.6
                change = (
                    mutations.change_json if subject.kind == "json" else mutations.change_tensors
                )
                spoilt, what = change(own, content, sealed=is_sealed)
            path.write_bytes(spoilt)
        fault = _read(subject, None if is_sealed or not subject.has_digest else expected, what)
        kept = {path, path.with_name("recipe.json"), path.with_name(f"{path.name}-journal")}
        if new := _files(path.parent) - before - kept:
            fault = fault or f"left {sorted(map(str, new))}"
    finally:
        _remove(path)
        path.write_bytes(content)
    sealed = ", sealed anew" if is_sealed else ""
    return f"{name} {number} ({what}{sealed}): {fault}" if fault else ""


def _read(subject, expected, what):
    try:
        with in_time(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = subject.read()
    except ReconSearchError as error:
        text = str(error)
        if "\n" in text and "recipe" not in subject.path.name:
            return f"more than a line: {text!r}"
        if len(text) > 2000:
            return f"a line of {len(text)} characters: {text[:300]!r}"
        if subject.path.parent.name not in text:
            return f"names no file: {text!r}"
        ends = text.endswith((".", "?", '"', "'", "]")) or "\n" in text or "--storage " in text
        return "" if ends else f"no end: {text!r}"
    except Hung:
        return "hung"
    except BaseException as error:  # a panic of a library is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {str(error)[:300]}"
    if expected is not None and found != expected and what != "absent":
        return f"changed in silence to {str(found)[:300]}"
    return ""


def _files(folder):
    return {*folder.rglob("*")}


def _remove(path):
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(kind):
        shutil.rmtree(path)
    else:
        path.unlink()
