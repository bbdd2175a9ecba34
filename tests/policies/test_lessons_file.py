"""What was learned survives the process, or is refused with a reason."""

import json

import numpy as np
import pytest
from traffic import document_questions, serve_all

from milepost.errors import ConfigurationError
from milepost.policies import learned, load_lessons, parse_policy, save_lessons
from milepost.policies.generations import num_generation_rows


@pytest.fixture(scope="module")
def taught():
    return serve_all("learned", document_questions(), capacity=30_000).cache.policy


def test_a_policy_goes_on_where_another_one_stopped(taught, tmp_path):
    path = tmp_path / "deeper" / "lessons"
    save_lessons(taught, path)
    fresh = learned()
    load_lessons(fresh, path)
    before, after = taught.lessons, fresh.lessons
    assert after.export() == before.export()
    assert after.price == before.price > 0
    for ours, theirs in ((before.prompts, after.prompts), (before.branch_points, after.branch_points)):
        ours._solve()
        np.testing.assert_allclose(ours.index, theirs.index)
    expected = [lessons.predict(9_000, ()) for lessons in (before, after)]
    np.testing.assert_array_equal(expected[0].depths, expected[1].depths)
    np.testing.assert_array_equal(expected[0].weights, expected[1].weights)
    assert list(path.parent.iterdir()) == [path]


def test_what_was_learned_helps_from_the_first_prompt_on(taught, tmp_path):
    save_lessons(taught, tmp_path / "lessons")
    load_lessons(warm := learned(), tmp_path / "lessons")
    cold, served = (serve_all(policy, document_questions(), capacity=30_000) for policy in (learned(), warm))
    first = [sum(s.report.reused for s in server.served[:40]) for server in (cold, served)]
    assert first[1] > first[0]


def test_what_an_older_version_saved_counts_as_of_prompts_without_branch_points(taught):
    exported = taught.lessons.export()
    shape = (3, 2, num_generation_rows(), -1)
    apart = {name: np.array(exported["prompts"][name]).reshape(shape) for name in ("uses", "exposure")}
    assert apart["exposure"][:, 1].any()
    older = {name: each.sum(1).ravel().tolist() for name, each in apart.items()}
    lessons = learned().lessons
    lessons.restore({**exported, "prompts": {**exported["prompts"], **older}})
    for name, each in apart.items():
        restored = np.array(lessons.export()["prompts"][name]).reshape(shape)
        np.testing.assert_array_equal(restored[:, 0], each.sum(1))
        assert not restored[:, 1].any()


def test_a_policy_that_learns_nothing_has_nothing_to_keep(tmp_path):
    with pytest.raises(ConfigurationError, match="learns nothing"):
        save_lessons(parse_policy("dense:2048"), tmp_path / "lessons")
    with pytest.raises(ConfigurationError, match="learns nothing"):
        load_lessons(parse_policy("dense:2048"), tmp_path / "lessons")


def damaged(path, change):
    whole = json.loads(path.read_bytes())
    change(whole)
    path.write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda whole: whole.update(format="milepost lessons 0"), "format"),
        (lambda whole: whole.update(lessons=whole["lessons"].replace("1", "2", 1)), "checksum"),
        (lambda whole: whole.pop("checksum"), "checksum"),
    ],
)
def test_a_damaged_file_is_refused_by_name(taught, tmp_path, change, reason):
    path = tmp_path / "lessons"
    save_lessons(taught, path)
    damaged(path, change)
    with pytest.raises(ConfigurationError, match=reason) as raised:
        load_lessons(learned(), path)
    assert str(path) in str(raised.value)


def test_anything_else_is_refused_too(tmp_path):
    path = tmp_path / "lessons"
    for content in (b"", b"[]", b"not json", b'{"format": "milepost lessons 2"}'):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match="remove it"):
            load_lessons(learned(), path)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("prompts", lambda part: part["uses"].pop()),
        ("prompts", lambda part: part["exposure"].__setitem__(0, -1)),
        ("prompts", lambda part: part["uses"].__setitem__(0, float("nan"))),
        ("returns", lambda part: part["prompts"].pop()),
        ("boundaries", lambda part: part["explained"].append(1.0)),
        ("overlap", lambda part: part["components"].pop()),
        ("overlap", lambda part: part["components"][0][1][0].reverse()),
        ("overlap", lambda part: part["components"][0][1][1].pop()),
    ],
)
def test_numbers_that_cannot_be_are_refused(taught, part, change):
    exported = taught.lessons.export()
    change(exported[part])
    with pytest.raises(ValueError, match=r"."):
        learned().lessons.restore(exported)
