"""The pages as their reader finds them, without scripts."""

import re

import pytest

from portico_gateway.auth.values import Role
from portico_gateway.studios.values import Status
from support.plain_browser import Browser
from support.web_world import World


def row(text: str, session_id: str) -> str:
    match = re.search(rf'<tr id="studio-{session_id}">.*?</tr>', text, re.S)
    assert match is not None
    return match[0]


async def test_home_is_the_workspace_last_seen(ana: Browser, world: World, lab: int) -> None:
    other = max(world.workspaces)
    assert (await ana.get("/")).location == f"/w/{lab}"
    seen = (await ana.get(f"/w/{other}")).headers["Set-Cookie"].partition(";")[0]
    cookie = f"__Host-portico-session={ana.cookie}; {seen}"
    assert (await ana.get("/", Cookie=cookie)).location == f"/w/{other}"


async def test_somebody_without_a_workspace_is_told_what_to_do(stranger: Browser, world: World) -> None:
    eve = Browser(stranger.session, stranger.port, world.cookie_of(world.user("eve")))
    answer = await eve.get("/")
    assert answer.status == 200
    assert "they need your user name" in answer.text


async def test_the_list_shows_each_studio_with_its_next_action(ana: Browser, lab: int) -> None:
    text = (await ana.get(f"/w/{lab}")).text
    running = row(text, "3fa1b2c4")
    assert "http://a3fa1b2c4.studio.localhost:8000/" in running
    assert "left</span>" in running
    assert all(name in running for name in ("Ana Ruiz", "Ben Okafor", "Chi Nguyen"))
    assert 'action="/studios/ca11ab1e/start"' in row(text, "ca11ab1e")
    assert ">Retry<" in row(text, "deadbeef")
    assert "its port 8888 is taken" in row(text, "deadbeef")
    assert 'href="/studios/0badcafe/open"' in row(text, "0badcafe")
    assert text.index("studio-3fa1b2c4") < text.index("studio-ca11ab1e")


async def test_a_refused_action_stays_and_says_why(dora: Browser, chi: Browser, lab: int) -> None:
    seen = row((await dora.get(f"/w/{lab}")).text, "3fa1b2c4")
    assert "This takes the role Connect; yours is View." in seen
    assert "/stop" not in seen
    assert '<a class="button tinted"' not in seen
    stopped = row((await chi.get(f"/w/{lab}")).text, "ca11ab1e")
    assert "This takes the role Launch; yours is Connect." in stopped


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("rna", {"3fa1b2c4"}),
        ("status:running", {"3fa1b2c4", "51deca11"}),
        ("author:ben", {"0badcafe", "deadbeef"}),
        ("status:stopped author:chi", {"ca11ab1e"}),
        ("nothing-like-it", set()),
    ],
)
async def test_search_narrows_the_list(ana: Browser, lab: int, search: str, found: set[str]) -> None:
    for path in (f"/w/{lab}", f"/w/{lab}/rows"):
        text = (await ana.get(f"{path}?search={search.replace(' ', '+')}")).text
        assert set(re.findall(r'<tr id="studio-(\w+)"', text)) == found
        assert bool(found) or "Nothing fits" in text


async def test_a_search_that_cannot_be_says_so(ana: Browser, lab: int) -> None:
    answer = await ana.get(f"/w/{lab}?search=status:nonsense")
    assert answer.status == 200
    assert "There is no status &#39;nonsense&#39;." in answer.text


async def test_a_chip_switches_its_term_and_replaces_its_like(ana: Browser, lab: int) -> None:
    text = (await ana.get(f"/w/{lab}?search=rna+status:running")).text
    links = re.findall(r'<a class="chip" href="([^"]+)"', text)
    assert f"/w/{lab}?search=rna" in links
    assert f"/w/{lab}?search=rna%20status%3Astopped" in links


async def test_a_long_list_comes_in_pages(ana: Browser, world: World, lab: int) -> None:
    creator = next(iter(world.users.values()))
    for number in range(120):
        world.add(world.workspaces[lab], creator, f"many-{number}", Status.STOPPED)
    first = (await ana.get(f"/w/{lab}?search=many")).text
    assert "1 to 100 of 120" in first
    assert "offset=100" in first
    assert "101 to 120 of 120" in (await ana.get(f"/w/{lab}?search=many&offset=100")).text
    for odd in ("-1", "x", "9" * 30):
        assert (await ana.get(f"/w/{lab}?offset={odd}")).status == 200


async def test_an_empty_workspace_teaches_the_first_step(ana: Browser, world: World) -> None:
    text = (await ana.get(f"/w/{max(world.workspaces)}")).text
    assert "No studios yet" in text
    assert "Add the first one" in text


async def test_adding_takes_nothing_but_the_button(ana: Browser, world: World, lab: int) -> None:
    answer = await ana.submit(f"/w/{lab}/add", f"/w/{lab}/add")
    verb, session_id = world.calls[-1]
    assert verb == "add"
    assert answer.location == f"/studios/{session_id}/open"
    made = world.rows[session_id]
    assert (made.status, made.configuration.cpu, made.configuration.memory) == (Status.STARTING, 2, 8192)
    assert made.configuration.lifespan_hours == 8


async def test_adding_takes_every_value(ana: Browser, world: World, lab: int) -> None:
    fields = {
        "name": "  my   studio ",
        "cpu": "4",
        "memory": "2.5",
        "lifespan": "0",
        "description": "what it is for",
        "private": "on",
        "environment": "A=1\r\nB=x=y\r\n",
        "then": "add",
    }
    answer = await ana.submit(f"/w/{lab}/add", f"/w/{lab}/add", **fields)
    made = world.rows[world.calls[-1][1]]
    assert answer.location == f"/w/{lab}?said=added"
    assert (made.name, made.status, made.is_private) == ("my studio", Status.STOPPED, True)
    assert (made.configuration.cpu, made.configuration.memory, made.configuration.lifespan_hours) == (4, 2560, 0)
    assert made.configuration.environment == (("A", "1"), ("B", "x=y"))


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("cpu", "0", "CPUs: a whole number from 1"),
        ("cpu", "-2", "CPUs: a whole number from 1"),
        ("cpu", "\u0662", "CPUs: a whole number from 1"),
        ("memory", "a lot", "Memory: a number of GiB"),
        ("memory", "1e9", "Memory: a number of GiB"),
        ("lifespan", "121", "The time it may run: a whole number from 0 to 120"),
        ("gpu", "99", "GPUs: a whole number from 0 to 64"),
        ("name", "n" * 81, "A name has at most 80 characters"),
        ("name", "rna-seq-qc", "exists already"),
        ("description", "d" * 2049, "A description has at most 2048 characters"),
        ("environment", "1A=x", "one NAME=value a line"),
        ("environment", "no equals sign", "one NAME=value a line"),
        ("template", "other/tool", "Choose a tool from the list"),
        ("compute", "elsewhere", "Choose a machine from the list"),
    ],
)
async def test_a_value_out_of_range_is_said_and_nothing_is_added(
    ana: Browser, world: World, lab: int, field: str, value: str, sentence: str
) -> None:
    before = len(world.rows)
    answer = await ana.submit(f"/w/{lab}/add", f"/w/{lab}/add", **{"description": "kept text", field: value})
    assert answer.status in (400, 409)
    assert sentence.lower() in answer.text.lower()
    assert field == "description" or "kept text" in answer.text
    assert len(world.rows) == before


async def test_the_summary_warns_before_the_form_is_sent(ana: Browser, lab: int) -> None:
    text = (await ana.get(f"/w/{lab}/add/summary?name=rna-seq-qc&cpu=64&memory=1000&lifespan=0&private=on")).text
    for said in ("exists already", "This machine has 8 CPUs", "32 GiB of memory", "until stopped", "you alone"):
        assert said in text


async def test_adding_is_refused_with_the_role_it_takes(chi: Browser, lab: int) -> None:
    answer = await chi.get(f"/w/{lab}/add")
    assert answer.status == 403
    assert "takes the role Maintain; yours is Connect" in answer.text
    assert f"/w/{lab}/add" not in (await chi.get(f"/w/{lab}")).text


async def test_the_start_page_starts_shows_steps_and_turns_into_the_tool(ana: Browser, world: World) -> None:
    page = await ana.get("/studios/ca11ab1e/open?next=/lab/tree/a%2520b.ipynb%3Fx")
    assert "Stopped because nobody was here" in page.text
    form = page.forms["/studios/ca11ab1e/start"]
    answer = await ana.post("/studios/ca11ab1e/start", form)
    assert world.calls == [("start", "ca11ab1e")]
    waiting = await ana.get(answer.location)
    assert "Starting figures for the paper" in waiting.text
    assert '<meta http-equiv="refresh"' in waiting.text
    state = await ana.get(answer.location.replace("/open", "/open/state"))
    assert "Bringing back your files" in state.text
    world.change("ca11ab1e", status=Status.RUNNING)
    state = await ana.get(answer.location.replace("/open", "/open/state"))
    there = "http://aca11ab1e.studio.localhost:8000/lab/tree/a%20b.ipynb?x"
    assert state.headers["HX-Redirect"] == there
    assert (await ana.get(answer.location)).location == there


async def test_a_second_press_of_start_asks_for_nothing_new(ana: Browser, world: World) -> None:
    form = (await ana.get("/studios/ca11ab1e/open")).forms["/studios/ca11ab1e/start"]
    for _ in range(3):
        assert (await ana.post("/studios/ca11ab1e/start", form)).status == 303
    assert world.calls == [("start", "ca11ab1e")]


async def test_a_failure_tells_its_cause_the_last_lines_and_what_is_safe(ana: Browser) -> None:
    text = (await ana.get("/studios/deadbeef/open")).text
    assert "The tool ended with exit code 1 before it answered" in text
    assert "OSError: [Errno 98] Address already in use" in text
    assert "\x1b" not in text
    assert "is safe" in text
    assert "/studios/deadbeef/start" in text


async def test_who_may_not_start_is_told_whom_to_ask(chi: Browser) -> None:
    page = await chi.get("/studios/ca11ab1e/open")
    assert "Ask Chi Nguyen" in page.text
    assert "/studios/ca11ab1e/start" not in page.forms
    token = (await chi.get("/account")).forms["/account/tokens"]["token"]
    answer = await chi.post("/studios/ca11ab1e/start", {"token": token})
    assert answer.status == 403
    assert "This takes the role Launch; yours is Connect." in answer.text


async def test_a_studio_is_stopped_extended_checkpointed_from_its_page(ana: Browser, world: World) -> None:
    page = "/studios/3fa1b2c4"
    ends = world.rows["3fa1b2c4"].lifespan_ends or 0
    assert (await ana.submit(page, f"{page}/extend")).location == f"{page}?said=extended"
    assert (world.rows["3fa1b2c4"].lifespan_ends or 0) > ends
    answer = await ana.submit(page, f"{page}/checkpoint")
    assert answer.location == f"{page}/checkpoints?said=checkpoint"
    assert "Being saved" in (await ana.get(answer.location)).text
    assert (await ana.submit(page, f"{page}/stop")).location == f"{page}?said=stopping"
    assert world.rows["3fa1b2c4"].status is Status.STOPPING
    text = (await ana.get(page)).text
    assert "Stopping" in text
    assert f'{page}/checkpoint"' not in text


async def test_the_overview_says_who_when_and_on_what(ana: Browser) -> None:
    text = (await ana.get("/studios/3fa1b2c4")).text
    for said in (
        "Chi Nguyen",
        "6 h 13 min",
        "2 CPUs, 8 GiB",
        "The kernel is shared",
        "4 checkpoints",
        "Quality control",
    ):
        assert said in text


async def test_the_timeline_shows_and_renames(ana: Browser, world: World) -> None:
    page = "/studios/3fa1b2c4/checkpoints"
    text = (await ana.get(page)).text
    assert "12,873 entries" in text
    assert "18.4 MB new" in text
    point = world.saved["3fa1b2c4"][1]
    answer = await ana.submit(page, f"{page}/{point.id}/name", name="the good one")
    assert answer.location == f"{page}?said=renamed"
    assert "the_good_one" in (await ana.get(page)).text
    taken = await ana.submit(page, f"{page}/{point.id}/name", name="rna-seq-qc_1")
    assert taken.status == 409
    assert "exists already" in taken.text


async def test_a_checkpoint_becomes_a_studio_of_its_own(ana: Browser, world: World) -> None:
    point = world.saved["3fa1b2c4"][2]
    path = f"/studios/3fa1b2c4/copy?checkpoint={point.id}"
    assert point.name in (await ana.get(path)).text
    form = (await ana.get(path)).forms["/studios/3fa1b2c4/copy"]
    answer = await ana.post("/studios/3fa1b2c4/copy", {**form, "name": "again", "then": "start"})
    made = world.rows[world.calls[-1][1]]
    assert answer.location == f"/studios/{made.session_id}/open"
    assert made.parent is not None
    assert made.parent.checkpoint_id == point.id
    taken = await ana.post("/studios/3fa1b2c4/copy", {**form, "name": "again"})
    assert taken.status == 409
    for odd in ("x", "1" * 40, "999999"):
        assert (await ana.get(f"/studios/3fa1b2c4/copy?checkpoint={odd}")).status in (400, 404)


async def test_settings_change_a_studio_that_is_down(ana: Browser, world: World) -> None:
    page = "/studios/ca11ab1e/settings"
    answer = await ana.submit(page, page, name="figures", memory="16", environment="A=1", lifespan="24")
    assert answer.location == f"{page}?said=saved"
    changed = world.rows["ca11ab1e"]
    assert (changed.name, changed.configuration.memory, changed.configuration.lifespan_hours) == ("figures", 16384, 24)
    assert (await ana.submit(page, page, memory="none")).status == 400
    assert "Not while it is running." in (await ana.get("/studios/3fa1b2c4/settings")).text


async def test_deleting_asks_for_the_name(ana: Browser, world: World, lab: int) -> None:
    page, action = "/studios/ca11ab1e/settings", "/studios/ca11ab1e/delete"
    wrong = await ana.submit(page, action, name="figures")
    assert wrong.status == 400
    assert "Nothing was deleted" in wrong.text
    assert "ca11ab1e" in world.rows
    right = await ana.submit(page, action, name="figures for the paper")
    assert right.location == f"/w/{lab}?said=deleted"
    assert "ca11ab1e" not in world.rows


async def test_the_log_is_shown_and_given_whole(ana: Browser, world: World, dora: Browser) -> None:
    text = (await ana.get("/studios/3fa1b2c4/logs?stream=tool")).text
    assert "ERROR: port 8888 is taken" in text
    world.log["3fa1b2c4"] = "line\n" * 40_000
    whole = await ana.get("/studios/3fa1b2c4/logs/text?stream=all")
    assert whole.text == "line\n" * 40_000
    assert whole.headers["Content-Disposition"] == 'attachment; filename="3fa1b2c4-all.log"'
    assert "The log is not for you to read" in (await dora.get("/studios/3fa1b2c4/logs")).text
    assert (await dora.get("/studios/3fa1b2c4/logs/text")).status == 403


async def test_members_are_invited_by_a_link_shown_once(ana: Browser, world: World, lab: int) -> None:
    page = f"/w/{lab}/members"
    answer = await ana.submit(page, page, email="eve@example.org", role="connect")
    assert answer.status == 200
    link = re.search(r"http://portico\.localhost:8000/link/([\w-]+)", answer.text)
    assert link is not None
    assert world.links[link[1]].user.user_name == "eve"
    again = (await ana.get(page)).text
    assert "/link/" not in again
    assert "eve@example.org" in again
    known = await ana.submit(page, page, email="eve@example.org", role="view")
    assert "nothing to send" in known.text
    for email in ("", "no-at-sign", "@example.org", "a@b@c", "a@"):
        assert (await ana.submit(page, page, email=email, role="view")).status == 400
    assert (await ana.submit(page, page, email="x@example.org", role="king")).status == 400


async def test_roles_change_and_members_leave(ana: Browser, world: World, lab: int) -> None:
    page = f"/w/{lab}/members"
    chi = next(u for u in world.users.values() if u.user_name == "chi")
    assert (await ana.submit(page, f"{page}/{chi.id}/role", role="maintain")).location == f"{page}?said=role"
    assert world.roles[lab, chi.id] is Role.MAINTAIN
    assert (await ana.submit(page, f"{page}/{chi.id}/remove")).location == f"{page}?said=removed"
    assert (lab, chi.id) not in world.roles


async def test_members_are_seen_but_not_changed_by_others(chi: Browser, world: World, lab: int) -> None:
    page = await chi.get(f"/w/{lab}/members")
    assert "Your role here is Connect" in page.text
    chi_id = next(u.id for u in world.users.values() if u.user_name == "chi")
    leave = f"/w/{lab}/members/{chi_id}/remove"
    assert [action for action in page.forms if action.startswith("/w/")] == [leave]
    token = (await chi.get("/account")).forms["/account/tokens"]["token"]
    fields = {"token": token, "email": "x@example.org", "role": "owner"}
    for action in (f"/w/{lab}/members", f"/w/{lab}/members/101/role", f"/w/{lab}/members/101/remove"):
        assert (await chi.post(action, fields)).status == 403


async def test_a_token_is_shown_once(ana: Browser, world: World) -> None:
    answer = await ana.submit("/account", "/account/tokens", name="laptop", days="30")
    assert "pt_" in answer.text
    again = (await ana.get("/account")).text
    assert "pt_" not in again
    assert ">laptop<" in again
    assert (await ana.submit("/account", "/account/tokens", name="laptop", days="30")).status == 409
    for fields in ({"name": "", "days": "30"}, {"name": "x" * 81, "days": "30"}, {"name": "y", "days": "31"}):
        assert (await ana.submit("/account", "/account/tokens", **fields)).status == 400
    made = next(iter(world.tokens.values()))[0]
    assert (await ana.submit("/account", f"/account/tokens/{made.id}/delete")).status == 303
    assert ">laptop<" not in (await ana.get("/account")).text


async def test_other_sign_ins_can_be_ended(ana: Browser, world: World) -> None:
    user = next(iter(world.users.values()))
    other = world.cookie_of(user)
    answer = await ana.submit("/account", "/account/sign-ins/2/end")
    assert answer.location == "/account?said=signed-out"
    assert other not in world.cookies
    assert ana.cookie in world.cookies


async def test_the_password_changes_with_the_present_one(ana: Browser, world: World) -> None:
    good = {"old": "correct horse battery", "password": "a new long one", "again": "a new long one"}
    for wrong in ({"old": "no"}, {"again": "another"}, {"password": "short", "again": "short"}):
        assert (await ana.submit("/account", "/account/password", **{**good, **wrong})).status in (400, 401)
    assert (await ana.submit("/account", "/account/password", **good)).location == "/account?said=password"
    assert "a new long one" in world.passwords.values()


async def test_what_a_page_says_comes_from_a_list(ana: Browser, lab: int) -> None:
    assert "state is saved first" in (await ana.get(f"/w/{lab}?said=stopping")).text
    assert "evil" not in (await ana.get(f"/w/{lab}?said=evil")).text
