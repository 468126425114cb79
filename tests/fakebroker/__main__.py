"""Serve a fake broker until the input ends: `python -m tests.fakebroker --port 0 --script FILE`.

The script is Python and finds `broker` in its namespace. The first line printed is the URL.
"""

from __future__ import annotations

import argparse
import runpy
import sys

from . import FakeBroker


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakebroker")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", help="Python file that arranges the scenario on `broker`")
    parser.add_argument("--now", help="freeze the clock at this ISO time")
    parser.add_argument("--key")
    parser.add_argument("--secret")
    options = parser.parse_args()
    with FakeBroker(options.now, key=options.key, secret=options.secret, port=options.port) as broker:
        if options.script:
            runpy.run_path(options.script, {"broker": broker})
        print(broker.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
