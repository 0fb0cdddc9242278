"""Wrong passwords slow down; a stranger locks nobody out; memory stays small."""

import asyncio

import pytest

from portico_gateway.auth.rate import FREE, FREE_FROM_ADDRESS, LONGEST, REMEMBERED, SignInRate
from portico_gateway.errors import TooMany, Unauthenticated
from portico_shared.clock import JumpingClock
from support.auth_world import AuthWorld


async def test_after_a_few_wrong_ones_even_the_right_password_waits(world: AuthWorld) -> None:
    await world.user("ana")
    for _ in range(FREE):
        with pytest.raises(Unauthenticated):
            await world.sign_in("ana", "wrong password")
    with pytest.raises(TooMany, match="try again in"):
        await world.sign_in("ana")
    await world.clock.jump(1.5)
    assert await world.sign_in("ana")
    with pytest.raises(Unauthenticated):
        await world.sign_in("ana", "wrong password")  # the slate is clean


async def test_a_stranger_elsewhere_does_not_lock_the_owner_out(world: AuthWorld) -> None:
    await world.user("ana")
    for _ in range(FREE):
        with pytest.raises(Unauthenticated):
            await world.sign_in("ana", "wrong password", peer="198.51.100.1")
    assert await world.sign_in("ana", peer="192.0.2.1")


async def test_a_hundred_at_once_do_not_slip_through_together(world: AuthWorld) -> None:
    await world.user("ana")
    tried = [world.sign_in("ana", f"wrong password {n}") for n in range(100)]
    said = await asyncio.gather(*tried, return_exceptions=True)
    assert sum(isinstance(each, Unauthenticated) for each in said) == FREE
    assert sum(isinstance(each, TooMany) for each in said) == 100 - FREE


async def test_one_address_trying_many_names_is_slowed() -> None:
    rate = SignInRate(JumpingClock())
    for number in range(FREE_FROM_ADDRESS):
        rate.attempt(f"user{number}", "198.51.100.1")
    with pytest.raises(TooMany):
        rate.attempt("another", "198.51.100.1")
    rate.attempt("another", "198.51.100.2")


async def test_the_wait_doubles_up_to_a_limit_and_is_forgotten_after_an_hour() -> None:
    clock = JumpingClock()
    rate, waits = SignInRate(clock), []
    for _ in range(FREE):
        rate.attempt("ana", "a")
    for _ in range(12):
        wait = 0
        while True:
            try:
                rate.attempt("ana", "a")
                break
            except TooMany:
                await clock.jump(1)
                wait += 1
        waits.append(wait)
    assert waits[:5] == [1, 2, 4, 8, 16]
    assert max(waits) == LONGEST
    await clock.jump(3601)
    for _ in range(FREE):
        rate.attempt("ana", "a")


async def test_a_million_names_take_bounded_memory() -> None:
    rate = SignInRate(JumpingClock())
    for number in range(REMEMBERED * 2):
        rate.attempt("ana", f"peer{number}")
    assert len(rate._records) <= REMEMBERED


async def test_many_people_of_one_office_sign_in_all_day() -> None:
    rate = SignInRate(JumpingClock())
    for number in range(FREE_FROM_ADDRESS * 4):
        rate.attempt(f"user{number}", "office")
        rate.succeeded(f"user{number}", "office")
