"""What every test relies on."""

from __future__ import annotations

import signal

# A shell that starts us in the background ignores Ctrl-C for all our children, and tests send it to them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
