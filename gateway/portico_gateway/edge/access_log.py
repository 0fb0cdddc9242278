"""One JSON line a request, every field bounded, control characters escaped by the JSON itself."""

import json
import logging

from portico_gateway.edge.head import Head

log = logging.getLogger("portico.access")
MAX_PATH = 300


def record(request: Head, status: int, sent: int, peer: str, session_id: str, user_id: int) -> None:
    """The query is left out: one-use codes pass there."""
    if not log.isEnabledFor(logging.INFO):
        return
    path = request.target.partition(b"?")[0][:MAX_PATH].decode("latin-1")
    log.info(
        json.dumps(
            {
                "method": request.method.decode(),
                "host": request.host[:100].decode("latin-1"),
                "path": path,
                "status": status,
                "bytes": sent,
                "peer": peer[:64],
                "studio": session_id,
                "user": user_id,
            }
        )
    )
