"""Every answer field by field, as clients of the API read them."""

import re
from dataclasses import dataclass
from typing import Any

import pytest

from portico_gateway.api import answers
from portico_gateway.studios.values import Status, StopReason
from support.api_world import ApiWorld
from support.studio_world import MAINTAINER, WORKSPACE

W = f"workspaceId={WORKSPACE}"
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@dataclass(frozen=True)
class Maybe:
    """This shape, or null."""

    shape: Any


@dataclass(frozen=True)
class OneOf:
    words: frozenset[str]


def one_of(*words: str) -> OneOf:
    return OneOf(frozenset(words))


def misfits(value: Any, shape: Any, where: str = "$") -> list[str]:
    """Where a value does not have the shape: missing fields, other types. Fields of our own may be there besides."""
    if isinstance(shape, Maybe):
        return [] if value is None else misfits(value, shape.shape, where)
    if isinstance(shape, OneOf):
        return [] if value in shape.words else [f"{where} is {value!r}"]
    if isinstance(shape, re.Pattern):
        return [] if isinstance(value, str) and shape.fullmatch(value) else [f"{where} is {value!r}"]
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{where} is no object"]
        missing = [f"{where}.{name} is missing" for name in shape if name not in value]
        return missing + [
            each for name in shape if name in value for each in misfits(value[name], shape[name], f"{where}.{name}")
        ]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [each for number, item in enumerate(value) for each in misfits(item, shape[0], f"{where}[{number}]")]
    return [] if type(value) is shape else [f"{where} is {value!r}, not {shape.__name__}"]


USER = {"id": int, "userName": str, "email": str, "avatar": str}
STATUS_INFO = {
    "status": one_of("starting", "running", "stopping", "stopped", "errored", "building", "buildFailed"),
    "message": str,
    "lastUpdate": DATE,
    "stopReason": Maybe(one_of("CREDITS_RUN_OUT", "LIFESPAN_EXPIRED", "SPOT_RECLAMATION", "NO_STATS_AVAIL")),
}
LABEL = {
    "id": int,
    "name": str,
    "value": Maybe(str),
    "resource": bool,
    "isDefault": bool,
    "isDynamic": bool,
    "isInterpolated": bool,
    "dateCreated": Maybe(DATE),
}
TEMPLATE = {
    "repository": str,
    "icon": str,
    "tool": str,
    "status": one_of("recommended", "deprecated", "experimental", "unsupported"),
}
CONFIGURATION = {
    "cpu": int,
    "gpu": int,
    "memory": int,
    "lifespanHours": int,
    "condaEnvironment": Maybe(str),
    "environment": Maybe({}),
    "mountData": Maybe([str]),
    "mountDataV2": Maybe([{"dataLinkId": str}]),
    "sshEnabled": Maybe(bool),
}
STUDIO = {
    "sessionId": re.compile("[0-9a-f]{8}"),
    "workspaceId": int,
    "name": str,
    "description": str,
    "user": USER,
    "studioUrl": re.compile(r"http://a[0-9a-f]{8}\.studio\.localhost:8000"),
    "computeEnv": {
        "id": str,
        "name": str,
        "platform": str,
        "region": str,
        "credentialsId": Maybe(str),
        "workDir": str,
    },
    "template": TEMPLATE,
    "configuration": CONFIGURATION,
    "dateCreated": DATE,
    "lastUpdated": DATE,
    "lastStarted": Maybe(DATE),
    "effectiveLifespanHours": int,
    "activeConnections": [{**USER, "lastActive": DATE}],
    "statusInfo": STATUS_INFO,
    "progress": [
        {"status": one_of("pending", "in-progress", "succeeded", "errored"), "message": str, "warnings": [str]}
    ],
    "isPrivate": bool,
    "allowedUsers": Maybe([USER]),
    "labels": Maybe([LABEL]),
    "parentCheckpoint": Maybe({"checkpointId": int, "checkpointName": str, "sessionId": str, "studioName": str}),
    "mountedDataLinks": [{}],
    "baseImage": Maybe(str),
    "customImage": bool,
    "waveBuildUrl": Maybe(str),
    "remoteConfig": Maybe({"repository": str}),
    "sshDetails": Maybe({"command": str, "host": str, "port": int, "user": str}),
}
SUBMITTED = {"jobSubmitted": bool, "sessionId": str, "statusInfo": STATUS_INFO}
CHECKPOINT = {
    "id": int,
    "name": str,
    "path": str,
    "status": one_of("empty", "interim", "finalized", "invalid"),
    "author": USER,
    "dateCreated": DATE,
    "dateSaved": DATE,
}
COMPUTE_ENV = {
    "id": str,
    "name": str,
    "platform": str,
    "region": str,
    "status": one_of("CREATING", "AVAILABLE", "DISABLED", "DELETING", "ERRORED", "INVALID", "DELETED"),
    "message": str,
    "primary": bool,
    "workDir": str,
    "credentialsId": Maybe(str),
    "labels": Maybe([LABEL]),
    "resources": Maybe({"cpus": Maybe(int), "memory": Maybe(int), "gpus": Maybe(int), "gpuEnabled": Maybe(bool)}),
}
MEMBER = {"memberId": int, "userName": str, "email": str, "firstName": str, "lastName": str, "avatar": str, "role": str}


async def test_a_studio_is_added_described_and_listed(world: ApiWorld) -> None:
    mia = world.api("mia")
    label = (await mia.post(f"/labels?{W}", {"name": "project", "value": "folding"})).value
    assert misfits(label, LABEL) == []
    asked = {
        "name": "folding",
        "description": "what folds",
        "computeEnvId": "memory",
        "dataStudioToolUrl": "portico/jupyterlab:4.6",
        "configuration": {"cpu": 1, "memory": 512, "gpu": 0, "lifespanHours": 3, "environment": {"A": "b"}},
        "isPrivate": True,
        "allowedUserIds": [4],
        "labelIds": [label["id"]],
        "spot": False,
        "remoteConfig": None,
    }
    added = await mia.post(f"/studios?{W}&autoStart=false", asked)
    assert added.status == 201
    made = added.value["studio"]
    assert misfits(made, STUDIO) == []
    assert (made["name"], made["description"], made["isPrivate"]) == ("folding", "what folds", True)
    assert made["configuration"]["environment"] == {"A": "b"}
    assert (made["configuration"]["cpu"], made["configuration"]["memory"]) == (1, 512)
    assert made["effectiveLifespanHours"] == 3
    assert [each["userName"] for each in made["allowedUsers"]] == ["cleo"]
    assert [(each["name"], each["value"]) for each in made["labels"]] == [("project", "folding")]
    assert made["user"]["userName"] == "mia"
    assert made["statusInfo"]["status"] == "stopped"
    described = await mia.get(f"/studios/{made['sessionId']}?{W}")
    assert described.value == made
    page = (await mia.get(f"/studios?{W}&attributes=labels")).value
    assert page == {"studios": [made], "totalSize": 1}
    assert (await mia.get(f"/studios?{W}")).value["studios"][0] == {**made, "labels": None}


async def test_adding_starts_unless_told_otherwise(world: ApiWorld) -> None:
    made = (await world.api("mia").post(f"/studios?{W}", {"name": "one", "computeEnvId": "memory"})).value["studio"]
    assert made["statusInfo"]["status"] == "starting"
    refused = await world.api("mia").post(f"/studios?{W}&autoStart=perhaps", {"computeEnvId": "memory"})
    assert (refused.status, "autoStart" in refused.message) == (400, True)


async def test_a_studio_through_its_life(world: ApiWorld) -> None:
    mia, rooms = world.api("mia"), world.rooms
    studio = await rooms.add()
    path = f"/studios/{studio.session_id}"
    started = await mia.put(f"{path}/start?{W}", {})
    assert (started.status, misfits(started.value, SUBMITTED)) == (200, [])
    assert started.value["jobSubmitted"] is True
    assert started.value["statusInfo"]["status"] == "starting"
    await rooms.placed(studio.session_id)
    agent = rooms.agent(studio.session_id)
    await agent.comes_up()
    await agent.commits("start")
    await rooms.until(studio.session_id, Status.RUNNING)
    running = (await mia.get(path)).value
    assert misfits(running, STUDIO) == []
    assert (running["statusInfo"]["status"], running["lastStarted"] is None) == ("running", False)
    assert running["progress"]
    assert {"connect", "stop", "fork", "checkpoint"} <= set(running["actions"])
    assert running["refusals"].keys() >= {"start", "edit", "delete"}

    extended = await world.api("cleo").post(f"{path}/lifespan")
    assert (extended.status, misfits(extended.value, STUDIO)) == (200, [])
    assert extended.value["lifespanEnds"] >= running["lifespanEnds"]

    made = await mia.post(f"{path}/checkpoints", {"name": "before"})
    assert (made.status, misfits(made.value, CHECKPOINT)) == (202, [])
    assert made.value["name"] == "before"
    log = await mia.get(f"{path}/logs?stream=all&offset=0")
    assert misfits(log.value, {"text": str, "nextOffset": int, "ended": bool}) == []

    stopped = await mia.put(f"{path}/stop?{W}")
    assert (stopped.status, misfits(stopped.value, SUBMITTED)) == (200, [])
    await rooms.until(studio.session_id, Status.STOPPED)
    assert (await mia.get(path)).value["statusInfo"]["stopReason"] is None
    assert (await mia.put(f"{path}/stop")).status == 409
    late = await mia.post(f"{path}/lifespan")
    assert (late.status, "stopped" in late.message) == (400, True)
    assert (await mia.delete(f"{path}?{W}")).status == 204
    assert (await mia.get(path)).status == 404


async def test_a_studio_that_is_not_stopped_is_not_deleted(world: ApiWorld) -> None:
    studio = await world.rooms.add()
    await world.rooms.run(studio.session_id)
    refused = await world.api("mia").delete(f"/studios/{studio.session_id}")
    assert (refused.status, "stop it" in refused.message) == (400, True)


async def test_a_studio_is_edited(world: ApiWorld) -> None:
    studio, mia = await world.rooms.add(), world.api("mia")
    await world.rooms.add("taken")
    path = f"/studios/{studio.session_id}"
    change = {
        "name": "two",
        "description": "",
        "configuration": {"memory": 256},
        "labelIds": [],
        "computeEnvId": "memory",
    }
    edited = await mia.put(path, change)
    assert (edited.status, misfits(edited.value, STUDIO)) == (200, [])
    assert (edited.value["name"], edited.value["configuration"]["memory"]) == ("two", 256)
    assert edited.value["configuration"]["lifespanHours"] == 8, "what is not given stays"
    assert (await mia.put(path, {"name": "taken"})).status == 409
    assert (await mia.put(path, {"computeEnvId": "elsewhere"})).status == 400
    assert (await mia.put(path, {"labelIds": [12345]})).status == 400
    assert (await mia.put(path, {"isPrivate": True, "allowedUserIds": [4, 5]})).value["isPrivate"] is True


async def test_starting_with_other_values_keeps_some_and_forgets_others(world: ApiWorld) -> None:
    studio, mia = await world.rooms.add(actor=MAINTAINER, is_private=True), world.api("mia")
    path = f"/studios/{studio.session_id}"
    given = {
        "description": "now",
        "allowedUserIds": [4],
        "labelIds": [],
        "configuration": {"memory": 300},
        "spot": None,
    }
    assert (await mia.put(f"{path}/start", given)).status == 200
    seen = (await mia.get(path)).value
    assert (seen["name"], seen["description"], seen["configuration"]["memory"]) == ("one", "now", 300)
    assert [user["userName"] for user in seen["allowedUsers"]] == ["cleo"]
    await world.rooms.placed(studio.session_id)
    await world.rooms.agent(studio.session_id).comes_up()
    assert (await mia.put(f"{path}/stop")).status == 200
    await world.rooms.until(studio.session_id, Status.STOPPED)
    assert (await mia.get(path)).value["configuration"]["memory"] == 8192


async def test_checkpoints_are_listed_described_and_renamed(world: ApiWorld) -> None:
    studio, mia = await world.rooms.add(), world.api("mia")
    await world.rooms.run(studio.session_id)
    path = f"/studios/{studio.session_id}/checkpoints"
    for name in ("a", "b"):
        assert (await mia.post(path, {"name": name})).status == 202
        await world.rooms.settles()
    page = (await mia.get(f"{path}?{W}")).value
    assert misfits(page, {"checkpoints": [CHECKPOINT], "totalSize": int}) == []
    assert [each["name"] for each in page["checkpoints"]][:2] == ["b", "a"], "newest first"
    assert page["totalSize"] == len(page["checkpoints"])
    part = (await mia.get(f"{path}?max=1&offset=1")).value
    assert (part["checkpoints"], part["totalSize"]) == (page["checkpoints"][1:2], page["totalSize"])
    number = page["checkpoints"][0]["id"]
    assert (await mia.get(f"{path}/{number}")).value == page["checkpoints"][0]
    renamed = await mia.put(f"{path}/{number}", {"name": "kept"})
    assert (renamed.value["name"], misfits(renamed.value, CHECKPOINT)) == ("kept", [])
    assert (await mia.get(f"{path}/999999")).status == 404
    assert "checkpointId" in (await mia.get(f"{path}/latest")).message


async def test_a_copy_says_what_it_was_made_from(world: ApiWorld) -> None:
    studio, mia = await world.rooms.add("parent"), world.api("mia")
    await world.rooms.run(studio.session_id)
    made = await mia.post(f"/studios/{studio.session_id}/fork?{W}", {"name": "child"})
    assert (made.status, misfits(made.value["studio"], STUDIO)) == (202, [])
    parent = made.value["studio"]["parentCheckpoint"]
    assert (parent["sessionId"], parent["studioName"]) == (studio.session_id, "parent")
    row = parent["checkpointId"]
    asked = {"name": "another", "computeEnvId": "memory", "initialCheckpointId": row, "configuration": {}}
    again = await mia.post(f"/studios?{W}&autoStart=false", asked)
    assert (again.status, again.value["studio"]["parentCheckpoint"]["checkpointId"]) == (201, row)


async def test_lists_that_clients_read_first(world: ApiWorld) -> None:
    mia = world.api("mia")
    assert (
        misfits(
            (await mia.get("/user-info")).value,
            {
                "user": {**USER, "firstName": str, "lastName": str, "deleted": bool},
                "needConsent": bool,
                "defaultWorkspaceId": int,
            },
        )
        == []
    )
    spaces = (await mia.get("/user/2/workspaces")).value
    assert (
        misfits(
            spaces,
            {
                "orgsAndWorkspaces": [
                    {
                        "orgId": int,
                        "orgName": str,
                        "workspaceId": int,
                        "workspaceName": str,
                        "workspaceFullName": str,
                        "roles": [str],
                        "visibility": one_of("PRIVATE", "SHARED"),
                        "orgType": one_of("academic", "evaluating", "pro", "basic", "internal"),
                    }
                ]
            },
        )
        == []
    )
    assert [each["roles"] for each in spaces["orgsAndWorkspaces"]] == [["maintain"]]
    assert (await mia.get("/user/1/workspaces")).status == 404
    templates = (await mia.get(f"/studios/templates?{W}")).value
    assert misfits(templates, {"templates": [TEMPLATE], "totalSize": int}) == []
    assert templates["totalSize"] == len(templates["templates"]) == 1
    assert (await mia.get(f"/studios/templates?{W}&offset=1")).value == {"templates": [], "totalSize": 1}
    envs = (await mia.get(f"/compute-envs?{W}&status=AVAILABLE")).value
    assert (misfits(envs, {"computeEnvs": [COMPUTE_ENV]}), len(envs["computeEnvs"])) == ([], 1)
    assert (await mia.get(f"/compute-envs?{W}&status=ERRORED")).value == {"computeEnvs": []}
    assert (await mia.get(f"/compute-envs/memory?{W}")).value == {"computeEnv": envs["computeEnvs"][0]}
    assert (await mia.get(f"/compute-envs/other?{W}")).status == 404
    assert (await mia.get(f"/data-links?{W}")).value == {"dataLinks": [], "totalSize": 0}
    assert (await mia.get(f"/studios/data-links?{W}")).value == {"dataLinkIds": []}


async def test_environments_a_studio_can_move_to(world: ApiWorld) -> None:
    studio = await world.rooms.add()
    path = f"/studios/{studio.session_id}/compatible-ce?{W}"
    plain = (await world.api("vera").get(path)).value
    assert (misfits(plain, {"computeEnvs": [COMPUTE_ENV]}), len(plain["computeEnvs"])) == ([], 1)
    assert plain["computeEnvs"][0]["resources"] is None
    asked = (await world.api("vera").get(path + "&attributes=labels,resources")).value
    assert asked["computeEnvs"][0]["resources"]["memory"] == 8192


async def test_what_answers_here_is_told_to_anybody(world: ApiWorld) -> None:
    found = (await world.api().get("/service-info")).value
    assert (
        misfits(
            found,
            {
                "serviceInfo": {
                    "version": str,
                    "apiVersion": str,
                    "commitId": str,
                    "authTypes": [str],
                    "loginPath": str,
                    "navbar": {"menus": [{}]},
                    "heartbeatInterval": int,
                    "userWorkspaceEnabled": bool,
                    "allowLocalRepos": bool,
                    "waveEnabled": bool,
                    "landingUrl": str,
                    "contentMaxFileSize": int,
                }
            },
        )
        == []
    )


async def test_a_name_is_checked(world: ApiWorld) -> None:
    await world.rooms.add("taken")
    mia, path = world.api("mia"), f"/studios/validate?{W}&name="
    free, taken, bad = await mia.get(path + "free"), await mia.get(path + "taken"), await mia.get(path)
    assert (free.status, free.value, taken.status, bad.status) == (204, None, 409, 400)
    assert (await mia.get(path + "n" * 81)).status == 400


async def test_settings_of_a_workspace_are_read_and_changed(world: ApiWorld) -> None:
    ada, path = world.api("ada"), f"/orgs/1/workspaces/{WORKSPACE}/settings/studios"
    shape = {
        "orgId": int,
        "wspId": int,
        "lifespanHours": Maybe(int),
        "privateStudioByDefault": bool,
        "containerRepository": Maybe(str),
        "nameStrategy": Maybe(str),
    }
    first = (await ada.get(path)).value
    assert (misfits(first, shape), first["wspId"], first["lifespanHours"]) == ([], WORKSPACE, None)
    given = {"lifespanHours": 4, "privateStudioByDefault": True, "containerRepository": None, "nameStrategy": None}
    assert (await ada.put(path, given)).status == 204
    second = (await ada.get(path)).value
    assert (second["lifespanHours"], second["privateStudioByDefault"]) == (4, True)
    made = (await world.api("mia").post(f"/studios?{W}&autoStart=false", {"computeEnvId": "memory"})).value["studio"]
    assert (made["isPrivate"], made["effectiveLifespanHours"]) == (True, 4)
    assert (await ada.put(path, {"lifespanHours": None})).status == 204
    assert (await ada.put(path, {})).status == 204
    third = (await ada.get(path)).value
    assert (third["lifespanHours"], third["privateStudioByDefault"]) == (None, True)
    assert "lifespanHours" in (await ada.put(path, {"lifespanHours": 121})).message
    assert (await ada.get("/orgs/2/workspaces/1/settings/studios")).status == 404
    assert (await ada.get("/orgs/1/workspaces/2/settings/studios")).status == 404


async def test_members_are_listed_invited_changed_and_removed(world: ApiWorld) -> None:
    olga, path = world.api("olga"), f"/workspaces/{WORKSPACE}/members"
    page = (await olga.get(path)).value
    assert misfits(page, {"members": [MEMBER], "totalSize": int}) == []
    assert {each["userName"]: each["role"] for each in page["members"]}["leo"] == "launch"
    invited = await olga.post(path, {"email": "new@example.org", "role": "connect"})
    assert invited.status == 201
    assert misfits(invited.value, {"memberId": int, "userName": str, "url": re.compile(r"http://\S+/link/\S+")}) == []
    member = f"{path}/{invited.value['memberId']}"
    assert (await olga.put(member, {"role": "launch"})).status == 204
    assert "role is one of" in (await olga.put(member, {"role": "emperor"})).message
    assert (await olga.delete(member)).status == 204
    assert (await olga.delete(member)).status == 404
    assert (await world.api("ada").put(f"{path}/1", {"role": "view"})).status == 403
    assert (await olga.put(f"{path}/1", {"role": "view"})).status == 400, "the last owner stays"
    found = (await olga.get("/orgs/1/members?search=LEO")).value
    assert {each["userName"] for each in found["members"]} == {"leo", "cleo"}
    some = (await olga.get("/orgs/1/collaborators?max=1&offset=1")).value
    assert (len(some["members"]), some["totalSize"]) == (1, 6)


async def test_the_instances_administrator_adds_workspaces_and_minds_accounts(world: ApiWorld) -> None:
    olga, path = world.api("olga"), "/orgs/1/workspaces"
    made = await olga.post(path, {"workspace": {"name": "second", "fullName": "The second", "visibility": "PRIVATE"}})
    shape = {"workspace": {"id": int, "name": str, "fullName": str, "description": str, "visibility": str}}
    assert (made.status, misfits(made.value, shape)) == (201, [])
    number = made.value["workspace"]["id"]
    assert (await olga.get(f"/studios?workspaceId={number}")).value == {"studios": [], "totalSize": 0}
    assert (await world.api("ada").get(f"/studios?workspaceId={number}")).status == 404
    assert (await olga.post(path, {"workspace": {"name": "second"}})).status == 409
    assert (await olga.post("/orgs/9/workspaces", {"workspace": {"name": "third"}})).status == 404
    assert "$.workspace.name" in (await olga.post(path, {"workspace": {"name": 3}})).message

    assert (await olga.put("/user/3", {"disabled": True})).status == 204
    assert (await world.api("leo").get("/user-info")).status == 401
    assert (await olga.put("/user/3", {"disabled": False})).status == 204
    assert (await world.api("leo").get("/user-info")).status == 200
    assert "your own" in (await olga.put("/user/1", {"disabled": True})).message
    assert (await olga.put("/user/999", {"disabled": True})).status == 404
    link = await olga.post("/user/3/reset-link")
    assert (link.status, misfits(link.value, {"userName": str, "url": str, "expires": DATE})) == (201, [])
    assert (await world.auth.link(link.value["url"].rpartition("/")[2])).user.user_name == "leo"


async def test_studios_and_checkpoints_are_searched_with_the_clients_words(world: ApiWorld) -> None:
    vera = world.api("vera")
    one, two = await world.rooms.add("alpha"), await world.rooms.add("beta", MAINTAINER)
    await world.rooms.run(one.session_id)
    wanted = {
        "": {"alpha", "beta"},
        "userId:2": {"beta"},
        "userId:2 userId:1": {"alpha", "beta"},
        "status:running": {"alpha"},
        "computeEnvId:memory bet": {"beta"},
        "computeEnvId:elsewhere": set(),
    }
    for search, names in wanted.items():
        page = (await vera.get(f"/studios?{W}&search={search.replace(' ', '%20')}")).value
        assert ({each["name"] for each in page["studios"]}, page["totalSize"]) == (names, len(names)), search
    assert "userId" in (await vera.get(f"/studios?{W}&search=userId:me")).message
    assert (await vera.get(f"/studios/{two.session_id}/checkpoints")).value == {"checkpoints": [], "totalSize": 0}


async def test_head_is_a_get_without_its_body(world: ApiWorld) -> None:
    whole, head = await world.api("vera").get(f"/studios?{W}"), await world.api("vera").send("HEAD", f"/studios?{W}")
    assert (head.status, head.value) == (200, None)
    assert head.headers["Content-Length"] == whole.headers["Content-Length"]
    assert (await world.api().send("HEAD", "/user-info")).status == 401


async def test_tokens_are_made_listed_and_deleted(world: ApiWorld) -> None:
    vera = world.api("vera")
    made = await vera.post("/tokens", {"name": " laptop ", "days": 30})
    assert (made.status, made.value["token"]["name"]) == (201, "laptop")
    assert misfits(made.value, {"accessKey": str, "token": {"id": int, "name": str, "dateCreated": DATE}}) == []
    rows = (await vera.get("/tokens")).value
    shape = {"id": int, "name": str, "dateCreated": DATE, "lastUsed": Maybe(DATE), "expires": Maybe(DATE)}
    assert misfits(rows, {"tokens": [shape]}) == []
    assert made.value["accessKey"] not in str(rows)
    world.tokens["second"] = made.value["accessKey"]
    assert (await world.api("second").get("/user-info")).value["user"]["userName"] == "vera"
    assert (await vera.post("/tokens", {"name": "laptop"})).status == 409
    assert (await world.api("leo").delete(f"/tokens/{made.value['token']['id']}")).status == 404
    assert (await vera.delete(f"/tokens/{made.value['token']['id']}")).status == 204
    assert (await world.api("second").get("/user-info")).status == 401


async def test_labels_are_found_by_a_part_of_their_name(world: ApiWorld) -> None:
    mia = world.api("mia")
    for name in ("alpha", "beta"):
        assert (await mia.post(f"/labels?{W}", {"name": name})).status == 200
    again = await mia.post(f"/labels?{W}", {"name": "alpha"})
    assert (again.status, "alpha" in again.message) == (409, True)
    page = (await mia.get(f"/labels?{W}&search=ET")).value
    assert (misfits(page, {"labels": [LABEL], "totalSize": int}), len(page["labels"])) == ([], 1)
    assert len((await mia.get(f"/labels?{W}&max=1")).value["labels"]) == 1


@pytest.mark.parametrize("reason", StopReason)
def test_only_reasons_that_clients_know_are_told(reason: StopReason) -> None:
    known = {"CREDITS_RUN_OUT", "LIFESPAN_EXPIRED", "SPOT_RECLAMATION", "NO_STATS_AVAIL"}
    assert (reason in answers.STOP_REASONS) == (reason.value in known)


def test_every_status_has_its_name() -> None:
    assert {answers.status_name(status) for status in Status} == STATUS_INFO["status"].words  # type: ignore[attr-defined]


async def test_without_a_workspace_the_callers_own_is_meant(world: ApiWorld) -> None:
    studio = await world.rooms.add()
    assert (await world.api("vera").get("/studios")).value["studios"][0]["sessionId"] == studio.session_id
    assert "member of none" in (await world.api("stan").get("/studios")).message
