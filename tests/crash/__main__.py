"""`python -m tests.crash --kills 300 [--seed N]`: the kill tests at full length."""

from __future__ import annotations

import argparse

from .kills import by_hand

if __name__ == "__main__":
    options = argparse.ArgumentParser(prog="python -m tests.crash")
    options.add_argument("--kills", type=int, default=300)
    options.add_argument("--seed", type=int, default=1)
    asked = options.parse_args()
    by_hand(asked.kills, asked.seed)
