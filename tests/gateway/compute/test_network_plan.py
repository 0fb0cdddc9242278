"""Ranges, links, the table's text and resolvers: what is decided without touching the machine."""

import json
from pathlib import Path

import pytest

from portico_gateway.compute.local import network
from portico_gateway.compute.local.network import NetworkFault
from portico_gateway.compute.local.resolver import Resolver, find_resolver, resolv_conf


def test_an_instance_takes_the_same_range_again_and_another_one_another() -> None:
    assert network.choose_subnet([], "0a0b0c") == network.choose_subnet([], "0a0b0c")
    assert network.choose_subnet([], "000001") != network.choose_subnet([], "000002")


def test_a_range_that_the_machine_routes_is_not_taken() -> None:
    first = network.choose_subnet([], "000000")
    assert network.choose_subnet([first], "000000") != first
    assert network.choose_subnet(["198.18.0.0/15"], "000000").startswith("100.")
    assert network.choose_subnet(["198.18.0.7"], "000000") == "198.18.16.0/20"


def test_no_range_left_is_said() -> None:
    with pytest.raises(NetworkFault, match="no private IPv4 range"):
        network.choose_subnet(network.RANGES, "00")


def test_links_have_two_addresses_of_their_own_and_the_resolver_keeps_the_last() -> None:
    assert network.link_addresses("198.18.0.0/20", 0) == ("198.18.0.1", "198.18.0.2")
    assert network.link_addresses("198.18.0.0/20", 3) == ("198.18.0.13", "198.18.0.14")
    assert network.resolver_address("198.18.0.0/20") == "198.18.15.254"


def test_the_smallest_free_number_is_given_out_until_the_range_ends() -> None:
    assert network.free_number("abc123", ["lo", "pvabc1230000", "pvabc1230002", "pvffffff0001"]) == 1
    full = [f"pvabc123{n:04x}" for n in range(1023)]
    with pytest.raises(NetworkFault, match="as many studios"):
        network.free_number("abc123", full)
    assert network.free_number("abc123", full[:-1]) == 1022


def test_a_name_fits_the_kernels_fifteen_letters() -> None:
    assert len(f"pv{network.instance_name(Path('/any/where'))}{1022:04x}") <= 15


def test_the_table_lets_others_traffic_through_unless_forwarding_was_off() -> None:
    rest = 'iifname != "pv*" oifname != "pv*" drop'
    assert rest in network.table_text("abc123", "198.18.0.0/20", only_ours=True)
    assert rest not in network.table_text("abc123", "198.18.0.0/20", only_ours=False)


def test_packets_are_as_large_as_the_way_out() -> None:
    lo = json.dumps([{"dst": "default", "dev": "lo"}])
    assert network.outside_mtu(lo) == int(Path("/sys/class/net/lo/mtu").read_text())
    for odd in ("[]", "", "{}", '[{"dev": "no-such-device"}]'):
        assert network.outside_mtu(odd) == 1500


def test_a_resolver_elsewhere_is_asked_directly(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("# mine\nsearch lab.example corp.example\nnameserver 192.0.2.53\nnameserver 2001:db8::1\n")
    assert find_resolver([], files=(file,)) == Resolver(("192.0.2.53",), ("lab.example", "corp.example"))
    assert resolv_conf(["192.0.2.53"], ["lab.example"]) == "nameserver 192.0.2.53\nsearch lab.example\n"


def test_behind_a_stub_on_loopback_its_own_upstream_is_asked(tmp_path: Path) -> None:
    stub, upstream = tmp_path / "stub", tmp_path / "upstream"
    stub.write_text("nameserver 127.0.0.53\nsearch lab.example\n")
    upstream.write_text("nameserver 192.0.2.53\n")
    assert find_resolver([], files=(stub, upstream)) == Resolver(("192.0.2.53",), ("lab.example",))


def test_a_resolver_on_this_machine_is_redirected_to(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 192.168.7.1\nnameserver 127.0.0.1\n")
    assert find_resolver(["192.168.7.1"], files=(file, tmp_path / "absent")) == Resolver(redirect="192.168.7.1")
    table = network.table_text("abc123", "198.18.0.0/20", only_ours=False, resolver="192.168.7.1")
    assert "ip daddr 198.18.15.254 meta l4proto { tcp, udp } th dport 53 dnat ip to 192.168.7.1:53" in table


def test_no_resolver_at_all_is_no_error(tmp_path: Path) -> None:
    assert find_resolver([], files=(tmp_path / "absent",)) == Resolver()
    assert resolv_conf([], []) == ""
