from portico_gateway.edge.presence import PresenceBook
from portico_gateway.link.messages import Presence
from portico_shared.clock import JumpingClock

STUDIO = "00c0ffee"


class Told:
    def __init__(self) -> None:
        self.clock = JumpingClock()
        self.messages: list[Presence] = []
        self.book = PresenceBook(self.messages.append, self.clock)

    def users(self) -> list[tuple[int, ...]]:
        return [tuple(user for user, _ in message.users) for message in self.messages]


async def test_open_websocket_keeps_its_user_here():
    told = Told()
    told.book.opened(STUDIO, 7)
    told.book.sweep()
    await told.clock.jump(3600)
    told.book.sweep()
    assert told.users() == [(7,)]
    told.book.closed(STUDIO, 7)
    told.book.sweep()
    assert told.users() == [(7,)]
    await told.clock.jump(31)
    told.book.sweep()
    assert told.users() == [(7,), ()]


async def test_requests_count_for_half_a_minute():
    told = Told()
    told.book.seen(STUDIO, 1)
    told.book.sweep()
    await told.clock.jump(20)
    told.book.seen(STUDIO, 2)
    told.book.sweep()
    await told.clock.jump(20)
    told.book.sweep()
    await told.clock.jump(20)
    told.book.sweep()
    assert told.users() == [(1,), (1, 2), (2,), ()]


def test_unchanged_presence_is_told_once():
    told = Told()
    told.book.seen(STUDIO, 1)
    for _ in range(5):
        told.book.sweep()
        told.book.seen(STUDIO, 1)
    assert told.users() == [(1,)]


def test_second_tab_of_a_user_outlives_the_first():
    told = Told()
    told.book.opened(STUDIO, 7)
    told.book.opened(STUDIO, 7)
    told.book.closed(STUDIO, 7)
    assert [p.users[0][0] for p in told.book.all()] == [7]


def test_crowd_is_bounded():
    told = Told()
    for user in range(2000):
        told.book.seen(STUDIO, user)
    assert len(told.book.all()[0].users) == 500
