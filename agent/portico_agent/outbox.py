"""What an agent still has to say on the control road: the newest status, answers, reports. Pure, and bounded."""

from collections import deque
from dataclasses import dataclass, field

import msgspec

from portico_shared.messages import Answer, Report, Status

MAX_REPORTS = 1000
"""Kept while the gateway is away; beyond it the oldest is dropped and counted."""
MAX_ANSWERS = 256
CONNECTION = 1_000_000
"""Status numbers of one connection: number n begins at n * CONNECTION, its last will has the last one. So everything
said on a connection is older than its will, and its will older than everything said on the next."""

Said = Status | Answer | Report


@dataclass(slots=True)
class Outbox:
    """One for the life of an agent. `status` is republished at each connection, the rest is said once."""

    status: Status | None = None
    dropped: int = 0
    _connection: int = 0
    _seq: int = 0
    _status_is_new: bool = False
    _answers: deque[Answer] = field(default_factory=lambda: deque(maxlen=MAX_ANSWERS))
    _reports: deque[Report] = field(default_factory=deque)

    def will(self, run: str, agent: int) -> Status:
        """A new connection begins: its last will. What was said last is to be said again."""
        self._connection += 1
        self._seq = self._connection * CONNECTION
        self._status_is_new = self.status is not None
        return Status(run=run, agent=agent, seq=self._seq + CONNECTION - 1, phase="unreachable")

    def put(self, said: Said) -> None:
        match said:
            case Status():
                self.status, self._status_is_new = said, True
            case Answer():
                self._answers.append(said)
            case _:
                if len(self._reports) >= MAX_REPORTS:
                    self._reports.popleft()
                    self.dropped += 1
                self._reports.append(said)

    def first(self) -> Said | None:
        """What to say next; it stays until `said` is told of it. A status gets its number here."""
        if self._status_is_new and self.status is not None:
            self._seq += 1
            self.status = msgspec.structs.replace(self.status, seq=self._seq)
            return self.status
        if self._answers:
            return self._answers[0]
        return self._reports[0] if self._reports else None

    def said(self, message: Said) -> None:
        """The broker has it."""
        if message is self.status:
            self._status_is_new = False
        elif self._answers and message is self._answers[0]:
            self._answers.popleft()
        elif self._reports and message is self._reports[0]:
            self._reports.popleft()

    @property
    def is_empty(self) -> bool:
        return not (self._status_is_new or self._answers or self._reports)
