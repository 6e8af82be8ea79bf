"""Decisions and rewards over plain HTTP: the right record gets the right reward, once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from server_kit import RunningServer, serving, simulator_observation
from tandem.inference_proc.engine import Engine
from tandem.shared.experiences.sampler import ReplayReader


@pytest.fixture(scope="module")
def lights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server of an application with one head whose choices have labels."""
    with serving(tmp_path_factory.mktemp("lights"), inference={"lanes": 3}) as running:
        yield running


def call(server: Any, path: str, **body: Any) -> Any:
    """The body of a successful call."""
    response = server.request("POST", path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


def problem(server: Any, path: str, status: int, content: Any = None, **options: Any) -> str:
    """The detail of a refused call."""
    if content is not None:
        options["content"] = content
    response = server.request("POST", path, **options)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (body["status"], body["type"]) == (status, "about:blank")
    assert body["title"]
    detail: str = body["detail"]
    return detail


def record(server: Any, decision_id: str) -> Any:
    """The record of a decision, or None."""
    rows = ReplayReader(server.engine.control, server.engine.instance.records, verify=True).recent(10**6)
    found = [row for row in rows if int(row["ticket"]) == int(decision_id.partition("-")[2], 16)]
    assert len(found) < 2
    return found[0] if found else None


def test_a_decision_is_made_and_its_reward_is_in_its_record(lights: Any) -> None:
    """What was answered is what is recorded: action, probability, observation, reward."""
    made = call(lights, "/v1/decide", observation=[1.5, -2.0])
    assert made["labels"] == [("red", "green", "blue")[made["action"][0]]]
    assert made["send"]
    assert made["model_version"] == 0
    given = call(lights, "/v1/reward", decision_id=made["decision_id"], value=0.75)
    assert given == {"decision_id": made["decision_id"], "matched": True, "counted": True}
    row = record(lights, made["decision_id"])
    assert row["action"].tolist() == made["action"]
    assert row["observation"].tolist() == [1.5, -2.0]
    assert float(row["actual_reward"]) == 0.75
    assert float(row["probability"]) == made["probability"]


def test_any_number_of_decisions_wait_at_once(lights: Any) -> None:
    """Without keys each is rewarded by its id, in whatever order; none takes another's place."""
    made = [call(lights, "/v1/decide", observation=[float(number), 0.0]) for number in range(20)]
    assert len({item["decision_id"] for item in made}) == 20
    for number in (*range(0, 20, 2), *range(1, 20, 2)):
        call(lights, "/v1/reward", decision_id=made[number]["decision_id"], value=float(number))
    for number, item in enumerate(made):
        row = record(lights, item["decision_id"])
        assert (row["observation"][0], row["actual_reward"]) == (number, number)


def test_a_request_that_comes_again_gets_the_same_answer(lights: Any) -> None:
    """While the decision waits: whatever the observation then. Afterwards it is a new one."""
    first = call(lights, "/v1/decide", observation=[1.0, 1.0], request_id="r-1")
    other = call(lights, "/v1/decide", observation=[1.0, 1.0], request_id="r-2")
    for _ in range(3):
        assert call(lights, "/v1/decide", observation=[9.0, 9.0], request_id="r-1") == first
    assert other["decision_id"] != first["decision_id"]
    before = lights.engine.get_stats()["decided"]
    call(lights, "/v1/decide", observation=[1.0, 1.0], request_id="r-1")
    assert lights.engine.get_stats()["decided"] == before
    call(lights, "/v1/reward", decision_id=first["decision_id"], value=1.0)
    again = call(lights, "/v1/decide", observation=[1.0, 1.0], request_id="r-1")
    assert again["decision_id"] != first["decision_id"]


def test_a_request_is_known_at_another_process(lights: Any) -> None:
    """A second engine of the instance gives the same answer, and takes its reward."""
    first = call(lights, "/v1/decide", observation=[1.0, 1.0], request_id="shared", key="user-7")
    with_other = Engine.attach(lights.name)
    try:
        again = with_other.decide("user-7", [2.0, 2.0], request_id="shared")
        assert (again.id, list(again.action)) == (first["decision_id"], first["action"])
        assert again.recorded_probability == first["probability"]
        assert again.reason == first["reason"]
        with_other.reward_decision(first["decision_id"], 0.5)
    finally:
        with_other.close()
    lights.engine.beat()
    assert float(record(lights, first["decision_id"])["actual_reward"]) == 0.5


def test_requests_at_the_same_moment_are_one_decision(lights: Any) -> None:
    """The same request sent by twenty clients at once is decided once."""
    before = lights.engine.get_stats()["decided"]
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(call, lights, "/v1/decide", observation=[1.0, 2.0], request_id="burst") for _ in range(20)]
        answers = [item.result() for item in asked]
    assert all(answer == answers[0] for answer in answers)
    assert lights.engine.get_stats()["decided"] == before + 1


def test_a_final_reward_counts_once_and_a_partial_one_once_for_its_id(lights: Any) -> None:
    """Sent again they match and do not count; the record has the sum."""
    name = call(lights, "/v1/decide", observation=[0.0, 1.0])["decision_id"]
    counted = []
    for value, reward_id in ((1.0, "click"), (1.0, "click"), (2.0, "cart"), (2.0, "cart")):
        given = call(lights, "/v1/reward", decision_id=name, value=value, final=False, reward_id=reward_id)
        assert given["matched"]
        counted.append(given["counted"])
    assert counted == [True, False, True, False]
    assert call(lights, "/v1/reward", decision_id=name, value=4.0)["counted"]
    assert not call(lights, "/v1/reward", decision_id=name, value=4.0)["counted"]
    assert not call(lights, "/v1/reward", decision_id=name, value=1.0, final=False, reward_id="new")["counted"]
    assert float(record(lights, name)["actual_reward"]) == 7.0


def test_a_key_names_the_newest_decision_under_it(lights: Any) -> None:
    """A reward by key completes that one; the older one's id is gone; a partial one counts once for its id too."""
    older = call(lights, "/v1/decide", observation=[0.0, 1.0], key="k")["decision_id"]
    newer = call(lights, "/v1/decide", observation=[1.0, 1.0], key="k")["decision_id"]
    for _ in range(2):
        given = call(lights, "/v1/reward", key="k", value=1.0, final=False, reward_id="x")
    assert given == {"decision_id": newer, "matched": True, "counted": False}
    assert call(lights, "/v1/reward", key="k", value=2.0) == {"decision_id": None, "matched": True, "counted": True}
    assert float(record(lights, newer)["actual_reward"]) == 3.0
    assert record(lights, older) is None
    assert "waits for no reward" in problem(lights, "/v1/reward", 410, json={"decision_id": older, "value": 1.0})
    given = call(lights, "/v1/reward", key="k", value=2.0)
    assert given == {"decision_id": None, "matched": False, "counted": False}


def test_unknown_ids_are_not_found(lights: Any) -> None:
    """Neither a wrong text nor another instance's id nor one of the future names a decision."""
    name = call(lights, "/v1/decide", observation=[0.0, 1.0])["decision_id"]
    series, ticket = name.split("-")
    others = f"{int(series, 16) ^ 1:016x}-{ticket}", f"{series}-{int(ticket, 16) + 1:016x}"
    for wrong in ("nothing", f"{series}-0", *others):
        assert "no decision" in problem(lights, "/v1/reward", 404, json={"decision_id": wrong, "value": 1.0})
    assert call(lights, "/v1/reward", decision_id=name, value=1.0)["counted"]


def test_batches_answer_each_by_itself(lights: Any) -> None:
    """What is wrong with one is told in its place; the others are decided and rewarded."""
    asked = [{"observation": [float(number), 0.0]} for number in range(100)]
    asked[7] = {"observation": [1.0]}
    results = call(lights, "/v1/decide/batch", requests=asked)["results"]
    assert "array of 2 numbers" in results[7]["problem"]["detail"]
    names = [result["answer"]["decision_id"] for result in results if "answer" in result]
    assert len(set(names)) == 99
    rewards = [{"decision_id": name, "value": float(place)} for place, name in enumerate(names)]
    rewards += [{"decision_id": "nothing", "value": 1.0}, {"decision_id": names[0], "value": 1.0}]
    results = call(lights, "/v1/reward/batch", rewards=rewards)["results"]
    assert [result["answer"]["counted"] for result in results if "answer" in result] == [True] * 99 + [False]
    assert results[99]["problem"]["status"] == 404
    for place, name in enumerate(names):
        assert float(record(lights, name)["actual_reward"]) == place


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("/v1/decide", b"{", "not JSON"),
        ("/v1/decide", b"", "not JSON"),
        ("/v1/decide", b"[]", "Expected `object`"),
        ("/v1/decide", b"{}", "`observation`"),
        ("/v1/decide", b'{"observation":[1,2],"colour":1}', "`colour`"),
        ("/v1/decide", b'{"observation":[1,"2"]}', "north must be a number"),
        ("/v1/decide", b'{"observation":[1,2,3]}', "array of 2 numbers"),
        ("/v1/decide", b'{"observation":[1,1e39]}', "north is too large"),
        ("/v1/decide", b'{"observation":[1,2],"key":7}', "`$.key`"),
        ("/v1/decide", b'{"observation":[1,2],"key":""}', "`$.key`"),
        ("/v1/decide", b'{"observation":[1,2],"key":"a\\u0000"}', "key: holds a NUL"),
        ("/v1/decide", b'{"observation":[1,2],"request_id":"%s"}' % (b"x" * 257), "`$.request_id`"),
        ("/v1/decide", b'{"observation":[1,2],"candidates":[]}', "candidates:"),
        ("/v1/decide", b'{"observation":[1,2],"candidates":[{"id":"a"}]}', "`features`"),
        ("/v1/decide", b'{"observation":[1,2],"allowed":["mauve"]}', "mauve"),
        ("/v1/decide", b'{"observation":[1,2],"allowed":[]}', "allowed"),
        ("/v1/decide", b'{"observation":[1,2],"allowed":{"lamp":[0]}}', "lamp"),
        ("/v1/reward", b'{"value":1}', "one of decision_id and key"),
        ("/v1/reward", b'{"value":1,"key":"a","decision_id":"b"}', "one of decision_id and key"),
        ("/v1/reward", b'{"value":1e39,"key":"a"}', "`$.value`"),
        ("/v1/reward", b'{"value":NaN,"key":"a"}', "not JSON"),
        ("/v1/reward", b'{"value":1,"key":"a","final":"yes"}', "`$.final`"),
        ("/v1/decide/batch", b'{"requests":[]}', "`$.requests`"),
        ("/v1/reward/batch", b'{"rewards":{}}', "`$.rewards`"),
    ],
)
def test_what_is_wrong_is_named(lights: Any, path: str, content: bytes, words: str) -> None:
    """Each fault is a 400 that names the field; nothing is recorded for it."""
    before = lights.engine.get_stats()["decided"]
    assert words in problem(lights, path, 400, content)
    assert lights.engine.get_stats()["decided"] == before


def test_too_long_a_body_is_refused(lights: Any) -> None:
    """More bytes than a frame may have are not read to their end."""
    assert "longer than" in problem(lights, "/v1/decide", 413, b" " * (lights.service.limits.body_bytes + 1))


def test_pages_of_other_sites_decide_nothing(lights: Any) -> None:
    """A browser says where a page comes from: one of another origin is turned away, whatever its content type."""
    headers = {"origin": "https://elsewhere.example", "content-type": "text/plain"}
    assert "token" in problem(lights, "/v1/decide", 403, b'{"observation":[1,2]}', headers=headers)


def test_the_token_is_needed_where_there_is_one(tmp_path: Any) -> None:
    """Both calls need it; a wrong one is none."""
    running = RunningServer(tmp_path, token="secret", gate={"reward_threshold": -100.0})
    try:
        for path in ("/v1/decide", "/v1/reward", "/v1/decide/batch", "/v1/reward/batch"):
            for headers in ({}, {"authorization": "Bearer wrong"}):
                problem(running, path, 403, b"{}", headers=headers)
            problem(running, path, 400, b"{}", headers={"authorization": "Bearer secret"})
    finally:
        running.close()


def test_the_document_describes_the_calls(lights: Any) -> None:
    """Its schemas come from the types: every field is there, with its bounds."""
    document = lights.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert set(schemas["DecideRequest"]["properties"]) == {"observation", "key", "request_id", "allowed", "candidates"}
    assert schemas["DecideRequest"]["required"] == ["observation"]
    assert schemas["RewardRequest"]["properties"]["value"]["maximum"] == float(np.finfo(np.float32).max)
    decide = document["paths"]["/v1/decide"]["post"]
    takes = decide["requestBody"]["content"]["application/json"]["schema"]
    assert takes == {"$ref": "#/components/schemas/DecideRequest"}
    assert decide["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/DecideAnswer")
    assert "410" in document["paths"]["/v1/reward"]["post"]["responses"]


def test_what_is_allowed_is_drawn_and_recorded(lights: Any) -> None:
    """By label, by index and as bools: nothing else comes up, and the probability is given what was allowed."""
    for allowed in (["green", "blue"], [1, 2], [False, True, True]):
        made = [call(lights, "/v1/decide", observation=[1.0, 2.0], allowed=allowed) for _ in range(20)]
        assert {item["labels"][0] for item in made} == {"green", "blue"}
        assert {item["probability"] for item in made} == {0.5}
    only = call(lights, "/v1/decide", observation=[1.0, 2.0], allowed=["red"])
    assert (only["labels"], only["probability"]) == (["red"], 1.0)
    call(lights, "/v1/reward", decision_id=only["decision_id"], value=1.0)
    assert record(lights, only["decision_id"])["allowed"].tolist() == [0b001]


@pytest.fixture(scope="module")
def made_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """`made_of(head)`: a server of an application with this one head (Python text)."""
    with contextlib.ExitStack() as running:

        def make(head: str) -> Any:
            source = "from tandem import Application, CandidateHead, GaussianHead\ndef create(settings, folder):\n"
            source += f"    return Application('made', ('mood',), ({head},))\n"
            return running.enter_context(serving(tmp_path_factory.mktemp("made"), source))

        yield make


def test_candidates_come_with_the_request(made_of: Any) -> None:
    """The label is the id of the one that was chosen, also when the request comes again; features are recorded."""
    server = made_of("CandidateHead('item', 4, ('price', 'fame'))")
    brought = [{"id": f"item {number}", "features": [number / 4, 1.0]} for number in range(3)]
    made = call(server, "/v1/decide", observation=[0.5], candidates=brought, request_id="one")
    assert made["labels"] == [brought[made["action"][0]]["id"]]
    assert made["probability"] == pytest.approx(1 / 3)
    assert call(server, "/v1/decide", observation=[0.5], candidates=brought, request_id="one") == made
    call(server, "/v1/reward", decision_id=made["decision_id"], value=1.0)
    row = record(server, made["decision_id"])
    assert row["candidates"][:3].tolist() == [item["features"] for item in brought]
    chosen = call(server, "/v1/decide", observation=[0.5], candidates=brought, allowed=["item 2"])
    assert chosen["labels"] == ["item 2"]
    words = "takes from 1 to 4"
    assert words in problem(server, "/v1/decide", 400, json={"observation": [0.5], "candidates": brought * 2})
    assert "candidates" in problem(server, "/v1/decide", 400, json={"observation": [0.5]})


def test_a_number_is_drawn_from_its_range(made_of: Any) -> None:
    """The action is the number, within its range; the record holds the same."""
    server = made_of("GaussianHead('price', 5.0, 20.0)")
    made = [call(server, "/v1/decide", observation=[0.5]) for _ in range(30)]
    assert all(5.0 <= item["action"][0] <= 20.0 for item in made)
    assert len({item["action"][0] for item in made}) > 20
    call(server, "/v1/reward", decision_id=made[0]["decision_id"], value=1.0)
    assert float(record(server, made[0]["decision_id"])["value"][0]) == made[0]["action"][0]


def test_an_applications_own_observation_is_decided(server: Any) -> None:
    """An application with a protocol of its own (the Queen) decides over HTTP as well; a fault in it is a 400."""
    assert "must be an object" in problem(server, "/v1/decide", 400, b'{"observation":3}')
    data = simulator_observation()
    made = call(server, "/v1/decide", observation=data.get("data", data))
    assert len(made["action"]) == 2
    assert 0.0 < made["probability"] <= 1.0
    assert not math.isnan(made["probability"])
