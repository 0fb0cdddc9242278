"""The link: the one Unix socket between edge workers and control. The edge asks, control answers and pushes.

What the edge needs, and how it gets it (nothing else passes):

    a studio cookie         verified by the edge with the public key control pushed; renewed by asking (`Renew`)
    a token, a code         asked (`Check…`), the answer carries its expiry and is cached no longer than that
    routes                  pushed: a snapshot on connect, then changes (`Routes`, `Route`, `RouteGone`)
    revocations             pushed (`Revoke`), each raises the generation
    is the tool up?         control asks the edge (`Probe`), the edge asks through the tunnel
    tunnels                 told by the edge (`Tunnels`), so that control knows which runs are in contact
"""
