"""How late a machine may be that is busy with other things: no bound on time is tighter than its own deadline by this.

What a test bounds would otherwise go on far longer, so that the room hides nothing.
"""

SLACK = 5.0  # seconds
