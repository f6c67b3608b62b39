"""Runs a server for as long as somebody holds the other end of standard input.

    leash.py PATH... -- COMMAND...

The operating system closes that end however the holder dies, so no test that panics, is killed or
times out leaves a server running. In the end the PATHs are removed: the server's data, and whatever it
left elsewhere. Nothing of it is needed then, so the server is killed without being asked.
"""

import os
import select
import shutil
import signal
import subprocess
import sys

POLL_SECONDS = 0.2


def main(arguments):
    split = arguments.index("--")
    paths, command = arguments[:split], arguments[split + 1 :]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        while server.poll() is None:
            readable, _, _ = select.select([sys.stdin], [], [], POLL_SECONDS)
            if readable and not os.read(sys.stdin.fileno(), 1):
                break
    finally:
        try:
            os.killpg(server.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended by itself
        code = server.wait()
        for path in paths:
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            elif os.path.exists(path):
                os.remove(path)
    return code if code > 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
