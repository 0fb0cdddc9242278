"""Every route for every role: who is let in, who is refused, and who is not even told that it is there."""

from dataclasses import dataclass
from typing import Any

from portico_gateway.api.app import ROUTES
from portico_gateway.auth.values import Role
from support.api_world import NEWCOMER, ApiWorld
from support.studio_world import MAINTAINER, WORKSPACE

W = f"workspaceId={WORKSPACE}"
ROLES = {
    "olga": Role.OWNER,
    "ada": Role.ADMIN,
    "mia": Role.MAINTAIN,
    "leo": Role.LAUNCH,
    "cleo": Role.CONNECT,
    "vera": Role.VIEW,
}
EVERYBODY, SIGNED_IN, INSTANCE = "everybody", "signed in", "administrators of this Portico"


@dataclass(frozen=True)
class Rule:
    """`least`: the lowest role that may; `done`: the statuses that mean "allowed" in the state the test makes."""

    least: Role | str
    query: str = W
    body: Any = None
    done: tuple[int, ...] = (200,)


RULES: dict[tuple[str, str], Rule] = {
    ("GET", "/service-info"): Rule(EVERYBODY),
    ("GET", "/user-info"): Rule(SIGNED_IN),
    ("GET", "/user/{userId}/workspaces"): Rule(SIGNED_IN),
    ("GET", "/orgs/{orgId}/members"): Rule(Role.VIEW),
    ("GET", "/orgs/{orgId}/collaborators"): Rule(Role.VIEW),
    ("GET", "/workspaces/{workspaceId}/members"): Rule(Role.VIEW),
    ("POST", "/workspaces/{workspaceId}/members"): Rule(
        Role.ADMIN, body={"email": NEWCOMER.user.email, "role": "view"}, done=(201, 409)
    ),
    ("PUT", "/workspaces/{workspaceId}/members/{userId}"): Rule(Role.ADMIN, body={"role": "view"}, done=(204,)),
    ("DELETE", "/workspaces/{workspaceId}/members/{userId}"): Rule(Role.ADMIN, done=(204,)),
    ("GET", "/tokens"): Rule(SIGNED_IN),
    ("POST", "/tokens"): Rule(SIGNED_IN, body={"name": "second"}, done=(201,)),
    ("DELETE", "/tokens/{tokenId}"): Rule(SIGNED_IN, done=(404,)),
    ("GET", "/compute-envs"): Rule(Role.VIEW),
    ("GET", "/compute-envs/{computeEnvId}"): Rule(Role.VIEW),
    ("GET", "/data-links"): Rule(Role.VIEW),
    ("GET", "/labels"): Rule(Role.VIEW),
    ("POST", "/labels"): Rule(Role.MAINTAIN, body={"name": "label"}, done=(200, 409)),
    ("GET", "/orgs/{orgId}/workspaces/{workspaceId}/settings/studios"): Rule(Role.LAUNCH),
    ("PUT", "/orgs/{orgId}/workspaces/{workspaceId}/settings/studios"): Rule(
        Role.ADMIN, body={"privateStudioByDefault": False}, done=(204,)
    ),
    ("GET", "/studios"): Rule(Role.VIEW),
    ("POST", "/studios"): Rule(
        Role.MAINTAIN, query=W + "&autoStart=false", body={"computeEnvId": "memory"}, done=(201,)
    ),
    ("GET", "/studios/data-links"): Rule(Role.LAUNCH),
    ("GET", "/studios/templates"): Rule(Role.VIEW),
    ("GET", "/studios/validate"): Rule(Role.MAINTAIN, query=W + "&name=free", done=(204,)),
    ("GET", "/studios/{sessionId}"): Rule(Role.VIEW),
    ("PUT", "/studios/{sessionId}"): Rule(Role.MAINTAIN, body={"description": "new"}, done=(409,)),
    ("DELETE", "/studios/{sessionId}"): Rule(Role.MAINTAIN, done=(400,)),
    ("PUT", "/studios/{sessionId}/start"): Rule(Role.LAUNCH, body={}, done=(409,)),
    ("PUT", "/studios/{sessionId}/stop"): Rule(Role.LAUNCH, done=(200,)),
    ("POST", "/studios/{sessionId}/lifespan"): Rule(Role.CONNECT),
    ("POST", "/studios/{sessionId}/fork"): Rule(Role.MAINTAIN, done=(202,)),
    ("GET", "/studios/{sessionId}/compatible-ce"): Rule(Role.VIEW),
    ("GET", "/studios/{sessionId}/checkpoints"): Rule(Role.VIEW),
    ("POST", "/studios/{sessionId}/checkpoints"): Rule(Role.LAUNCH, done=(202,)),
    ("GET", "/studios/{sessionId}/checkpoints/{checkpointId}"): Rule(Role.VIEW),
    ("PUT", "/studios/{sessionId}/checkpoints/{checkpointId}"): Rule(Role.MAINTAIN, body={"name": "renamed"}),
    ("GET", "/studios/{sessionId}/logs"): Rule(Role.VIEW),
    ("GET", "/workspaces/{workspaceId}/events"): Rule(Role.VIEW),
    ("POST", "/orgs/{orgId}/workspaces"): Rule(INSTANCE, body={"workspace": {"name": "new"}}, done=(201,)),
    ("PUT", "/user/{userId}"): Rule(INSTANCE, body={"disabled": False}, done=(204,)),
    ("POST", "/user/{userId}/reset-link"): Rule(INSTANCE, done=(201,)),
}


def test_the_table_names_every_route_and_no_other() -> None:
    assert set(RULES) == {(route.method, route.path) for route in ROUTES}


async def addresses(world: ApiWorld) -> dict[str, str]:
    """What stands for the names in a path: a running studio that has a checkpoint."""
    studio = await world.rooms.add("busy")
    await world.rooms.run(studio.session_id)
    checkpoint = min(world.rooms.catalogue.rows)
    return {
        "workspaceId": str(WORKSPACE),
        "orgId": "1",
        "sessionId": studio.session_id,
        "checkpointId": str(checkpoint),
        "computeEnvId": "memory",
        "tokenId": "999",
    }


async def status_of(world: ApiWorld, name: str, rule: Rule, method: str, path: str) -> int:
    more = {} if rule.body is None else {"json": rule.body}
    async with world.api(name).open(method, f"{path}?{rule.query}", **more) as response:
        return int(response.status)


async def test_every_route_lets_in_exactly_the_roles_of_the_table(world: ApiWorld) -> None:
    known, wrong = await addresses(world), {}
    for (method, path), rule in RULES.items():
        for name, role in (*ROLES.items(), ("stan", None), ("", None)):
            here = {**known, "userId": await user_in(world, name, path)}
            if path.endswith("/stop"):
                here["sessionId"] = await fresh(world)
            got = await status_of(world, name, rule, method, path.format(**here))
            if got not in expected(rule, role, name):
                wrong[f"{name or 'nobody'} {method} {path}"] = got
    assert wrong == {}


async def user_in(world: ApiWorld, name: str, path: str) -> str:
    """Who stands in the path: a member to change, or the caller."""
    if "/members/" in path:
        await world.join(NEWCOMER, Role.VIEW)
        return str(NEWCOMER.user.id)
    return str((await world.api(name).get("/user-info")).value["user"]["id"]) if name else "1"


async def fresh(world: ApiWorld) -> str:
    studio = await world.rooms.add(f"to stop {len(world.rooms.edge.routes)}")
    await world.rooms.run(studio.session_id)
    return studio.session_id


def expected(rule: Rule, role: Role | None, name: str) -> tuple[int, ...]:
    if rule.least is EVERYBODY:
        return rule.done
    if not name:
        return (401,)
    if rule.least is SIGNED_IN:
        return rule.done
    if rule.least is INSTANCE:
        return rule.done if name == "olga" else (403,)
    assert isinstance(rule.least, Role)
    if role is None:
        return (404,)
    return rule.done if role >= rule.least else (403,)


async def test_a_private_studio_is_for_its_creator_and_those_it_names(world: ApiWorld) -> None:
    studio = await world.rooms.add("mine", MAINTAINER, is_private=True, allowed_user_ids=(4,))
    path = f"/studios/{studio.session_id}"
    await world.rooms.run(studio.session_id, MAINTAINER)
    assert (await world.api("vera").get(path)).value["isPrivate"] is True
    assert {
        name: (await world.api(name).post(path + "/lifespan")).status for name in ("mia", "cleo", "leo", "olga")
    } == {
        "mia": 200,
        "cleo": 200,
        "leo": 403,
        "olga": 403,
    }
    assert "private" in (await world.api("olga").get(path + "/logs")).message
    assert (await world.api("leo").put(path + "/stop")).status == 403
    assert (await world.api("olga").put(path + "/stop")).status == 200


async def test_a_workspace_can_take_starting_away_from_launch(world: ApiWorld) -> None:
    studio = await world.rooms.add()
    start = f"/studios/{studio.session_id}/start"
    settings = f"/orgs/1/workspaces/{WORKSPACE}/settings/studios"
    assert (await world.api("ada").put(settings, {"launchMayStart": False})).status == 204
    assert "only Maintain and higher" in (await world.api("leo").put(start)).message
    assert (await world.api("mia").put(start)).status == 200


async def test_another_workspaces_studio_is_not_there(world: ApiWorld) -> None:
    studio = await world.rooms.add()
    for path in (
        f"/studios/{studio.session_id}?workspaceId=2",
        "/studios/00000000",
        "/studios/not-an-id",
        "/studios/A",
    ):
        reply = await world.api("olga").get(path)
        assert (reply.status, bool(reply.message)) == (404, True)
    assert (await world.api("stan").get(f"/studios/{studio.session_id}")).value == (
        await world.api("stan").get("/studios/00000000")
    ).value
