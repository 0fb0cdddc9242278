import pytest

from portico_gateway.edge.hosts import LITERAL, MANAGEMENT, UNKNOWN, Hosts, Target

hosts = Hosts("portico.localhost", "studio.localhost")


@pytest.mark.parametrize(
    ("host", "target"),
    [
        (b"portico.localhost", MANAGEMENT),
        (b"portico.localhost:8000", MANAGEMENT),
        (b"a00c0ffee.studio.localhost:8000", Target("studio", "00c0ffee")),
        (b"a00c0ffee.studio.localhost", Target("studio", "00c0ffee")),
        (b"3000--a00c0ffee.studio.localhost", Target("studio", "00c0ffee", 3000)),
        (b"65535--a00c0ffee.studio.localhost", Target("studio", "00c0ffee", 65535)),
        (b"127.0.0.1:8000", LITERAL),
        (b"[::1]:8000", LITERAL),
        (b"[::1]", LITERAL),
    ],
)
def test_host_names_its_target(host: bytes, target: Target):
    assert hosts.find(host) == target


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"evil.test",
        b"studio.localhost",
        b"portico.localhost.",
        b"xportico.localhost",
        b"portico.localhost.evil.test",
        b"a00c0ffee.studio.localhost.",
        b"a00c0ffee.studio.localhost.evil.test",
        b"x.a00c0ffee.studio.localhost",
        b"a00c0ffe.studio.localhost",
        b"a00c0ffee0.studio.localhost",
        b"a00c0ffeg.studio.localhost",
        b"00c0ffee.studio.localhost",
        b"a00c0ffeexstudio.localhost",
        b"0--a00c0ffee.studio.localhost",
        b"65536--a00c0ffee.studio.localhost",
        b"03000--a00c0ffee.studio.localhost",
        b"-1--a00c0ffee.studio.localhost",
        b"3000-a00c0ffee.studio.localhost",
        b"portico.localhost:8000:1",
        b"portico.localhost:",
        b"portico.localhost:x",
        b"portico.localhost:123456",
        b"portico.localhost@evil.test",
        b"user@portico.localhost",
        b"portico.localhost%00",
        b"portico.localhost ",
        b"a" * 400,
    ],
)
def test_host_that_names_nothing_of_ours_is_unknown(host: bytes):
    assert hosts.find(host) == UNKNOWN
