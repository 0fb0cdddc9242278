"""What is decided from what a machine allows, and how it is told."""

from dataclasses import replace

import pytest

from portico_gateway.compute.local.abilities import Abilities, root_is_overlay, separate_folders
from portico_gateway.compute.local.confinement import decide
from portico_gateway.errors import BadRequest

EVERYTHING = Abilities(
    root_namespaces="", overlay="", user_namespaces="", btrfs="", veth="", pasta="", slirp="", foreign_firewall=""
)
PLAIN_USER = replace(EVERYTHING, root_namespaces="not root", overlay="not root", btrfs="not root", veth="not root")
NOTHING = replace(PLAIN_USER, user_namespaces="refused", pasta="missing", slirp="missing")


@pytest.mark.parametrize(
    ("abilities", "mode", "network", "images", "shared"),
    [
        (EVERYTHING, "root", "veth", True, True),
        (replace(EVERYTHING, btrfs="no loop"), "root", "veth", False, True),
        (replace(EVERYTHING, foreign_firewall="table drops"), "root", "pasta", True, True),
        (replace(EVERYTHING, veth="no nft", pasta="missing"), "root", "slirp", True, True),
        (replace(EVERYTHING, veth="no nft", pasta="missing", slirp="missing"), "root", "loopback", True, True),
        (replace(EVERYTHING, split_root="/usr"), "user", "pasta", False, True),
        (PLAIN_USER, "user", "pasta", False, True),
        (replace(PLAIN_USER, pasta="missing"), "user", "slirp", False, True),
        (replace(PLAIN_USER, pasta="missing", slirp="missing"), "user", "host", False, False),
        (NOTHING, "none", "host", False, False),
    ],
)
def test_the_best_that_a_machine_allows_is_taken(
    abilities: Abilities, mode: str, network: str, images: bool, shared: bool
) -> None:
    found = decide("auto", abilities)
    assert (found.mode, found.network, found.images, found.shared) == (mode, network, images, shared)
    assert ("only the account that started Portico" in found.note) != shared


def test_what_is_asked_for_is_given_or_refused_in_words() -> None:
    assert decide("user", EVERYTHING).mode == "user"
    assert decide("none", EVERYTHING).mode == "none"
    with pytest.raises(BadRequest, match="'root' is not possible here: not root"):
        decide("root", PLAIN_USER)
    with pytest.raises(BadRequest, match="/usr lies on a file system of its own"):
        decide("root", replace(EVERYTHING, split_root="/usr"))
    with pytest.raises(BadRequest, match="refused"):
        decide("user", NOTHING)


def test_a_container_is_known_by_its_root() -> None:
    plain = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw"
    inside = "600 500 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/x"
    deeper = "601 600 0:51 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw"
    assert not root_is_overlay(plain)
    assert not root_is_overlay(f"{plain}\n{deeper}")
    assert root_is_overlay(f"{inside}\n{deeper}")


def test_programs_on_a_file_system_of_their_own_are_found() -> None:
    table = (
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 8:2 / /usr rw - ext4 /dev/sda2 rw\n24 22 8:3 / /home rw - ext4 x rw"
    )
    assert separate_folders(table) == ["/usr"]
