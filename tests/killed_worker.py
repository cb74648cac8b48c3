"""A command whose process is killed in the middle of an epoch: `killed_worker N ARGUMENTS...`.

It ends where update N, counted from 0, would begin; nobody can clean up then.
"""

import os
import signal
import sys

from recon_search import cli
from recon_search.training.step import Stepper


def main():
    last = int(sys.argv.pop(1))
    begin = Stepper.begin

    def kill(stepper, number):
        if number == last:
            os.kill(os.getpid(), signal.SIGKILL)
        begin(stepper, number)

    Stepper.begin = kill
    cli.main()


if __name__ == "__main__":
    main()
