"""The agent's end of the data road: keeps spare connections to the gateway open and joins claimed ones to the tool.

A *spare* is one connection from the first byte of its upgrade request to the claim (pure, in `spare`); a *stream* is
a claimed one, piped to a port of the tool; the *dialer* keeps as many spares as are wanted.
"""
