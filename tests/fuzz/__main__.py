"""Repeat a case and show what it meets: python -m tests.fuzz NAME NUMBER."""

import sys
import tempfile
from pathlib import Path

from tests.fuzz.cases import run_case
from tests.fuzz.subjects import make_subjects

*words, number = sys.argv[1:]
with tempfile.TemporaryDirectory() as folder:
    subject = make_subjects(Path(folder))[" ".join(words)]
    print(
        run_case(" ".join(words), subject, int(number), subject.read())
        or "One line, as it should be."
    )
