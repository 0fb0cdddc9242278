"""The gateway's end of the data road.

A *tunnel connection* is one socket that a run's agent dialled. It is `spare` until a stream needs it, then `claiming`
(the claim is sent, the agent's byte awaited), `busy` (a raw pipe to one port of the tool), and between two requests
of that port `idle`. A *pool* holds the connections of one run, the *registry* the pools of all studios; the
*acceptor* makes connections out of upgrade requests. The grammar is in `portico_shared.tunnel`.
"""
