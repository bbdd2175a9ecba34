"""An engine with a folder: what memory drops, and what an earlier process had, is read back and computed
with.
"""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from fake_driver import (
    KV_BYTES,
    STATE_BYTES,
    FakeDriver,
    SameModel,
    expected_answer,
    fake_engine,
    fake_model,
    tokens,
)

from milepost.engines.audit import Audit
from milepost.engines.engine import Engine
from milepost.engines.keeping import CacheRequest, keep_in
from milepost.errors import CapacityError, ConfigurationError, InvalidRequestError

LENGTH = 200
# Room for two such prompts with a state each.
SMALL = 2 * (STATE_BYTES + LENGTH * KV_BYTES)


def ask(engine, prompt, **options):
    completion = engine.generate(prompt, max_new_tokens=3, **options)
    assert completion.tokens == expected_answer(prompt, 3)
    engine.cache.check()
    return completion


def on_disk(engine):
    (tier,) = engine.cache.slower
    tier.shelf.flush()
    return tier


def test_what_memory_dropped_is_read_from_the_folder(tmp_path):
    with fake_engine(policy="tail", capacity=SMALL, cache_dir=tmp_path) as engine:
        first = ask(engine, tokens(LENGTH))
        assert first.reused_by_tier == {"memory": 0}
        for seed in range(1, 5):
            ask(engine, tokens(LENGTH, seed=seed))
        again = ask(engine, tokens(LENGTH))
        assert again.report.reused == 192
        assert again.reused_by_tier == {"memory": 0, "disk": 192}
        assert ask(engine, tokens(LENGTH)).reused_by_tier == {"memory": 192}
        memory, disk = engine.tiers()
        assert (memory.name, disk.name) == ("memory", "disk")
        assert (memory.traffic.reused_tokens, disk.traffic.reused_tokens) == (192, 192)
        assert (memory.traffic.num_hits, disk.traffic.num_hits) == (1, 1)
        assert disk.stored_bytes > 0
        assert json.loads(json.dumps(again.as_json()))["reused_by_tier"] == {"memory": 0, "disk": 192}


def test_an_engine_without_a_folder_computes_them_again():
    with fake_engine(policy="tail", capacity=SMALL) as engine:
        ask(engine, tokens(LENGTH))
        for seed in range(1, 5):
            ask(engine, tokens(LENGTH, seed=seed))
        again = ask(engine, tokens(LENGTH))
        assert (again.report.reused, again.report.eviction) == (0, 192)
        assert again.reused_by_tier == {"memory": 0}
        assert [tier.name for tier in engine.tiers()] == ["memory"]


@pytest.mark.parametrize("numerics", ["strict", "fast"])
@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "killed"])
def test_the_next_process_goes_on_from_the_folder(tmp_path, numerics, is_closed):
    options = {"policy": "tail", "numerics": numerics, "cache_dir": tmp_path}
    engine = fake_engine(**options)
    chat = list(tokens(LENGTH))
    ask(engine, chat)
    on_disk(engine)
    if is_closed:
        engine.close()
    else:
        # All that a process leaves behind that is killed: no lessons, and a lock that goes with it.
        on_disk(engine).shelf.close()
    with fake_engine(**options) as engine:
        again = ask(engine, [*chat, 5, 6, 7])
        assert again.reused_by_tier["disk"] >= 192
        assert (again.report.eviction, again.report.reset) == (0, 0)


def test_a_chat_with_a_restart_in_the_middle_computes_what_one_without_does(tmp_path):
    def computed(engine_for_turn):
        chat, total = [], 0
        for turn in range(10):
            engine = engine_for_turn(turn)
            chat += tokens(90, seed=turn).tolist()
            completion = engine.generate(chat, max_new_tokens=20)
            chat += completion.tokens
            total += completion.report.recomputed
        engine.close()
        return total

    one = fake_engine(policy="learned", cache_dir=tmp_path / "one")
    engines = {}

    def restarted(turn):
        if turn in (0, 5):
            if engines:
                engines.popitem()[1].close()
            engines[turn] = fake_engine(policy="learned", cache_dir=tmp_path / "other")
        return next(iter(engines.values()))

    without = computed(lambda turn: one)
    assert computed(restarted) <= 1.05 * without


def test_what_the_policy_learned_goes_on_too(tmp_path):
    with fake_engine(policy="learned", cache_dir=tmp_path) as engine:
        for turn in range(1, 7):
            ask(engine, tokens(LENGTH)[: 32 * turn])
        learned = engine.cache.policy.lessons.export()
        folder = on_disk(engine).shelf.folder
    assert sorted(path.name for path in folder.glob("*.lessons.json")) == [
        "disk.lessons.json",
        "memory.lessons.json",
    ]
    with fake_engine(policy="learned", cache_dir=tmp_path) as engine:
        assert engine.cache.policy.lessons.export()["overlap"] == learned["overlap"]
    (folder / "memory.lessons.json").write_text("damaged")
    with fake_engine(policy="learned", cache_dir=tmp_path) as engine:
        assert engine.cache.policy.lessons.export()["overlap"] != learned["overlap"]
        assert ask(engine, tokens(LENGTH)[:192]).report.reused > 0


def test_files_that_were_damaged_are_computed_again_and_nobody_is_told_another_answer(tmp_path):
    with fake_engine(policy="tail", cache_dir=tmp_path) as engine:
        ask(engine, tokens(LENGTH))
    files = list(tmp_path.rglob("*.safetensors"))
    for path in files:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert files
    with fake_engine(policy="tail", cache_dir=tmp_path) as engine:
        again = ask(engine, tokens(LENGTH))
        assert (again.report.reused, again.report.reset) == (0, 192)
        assert engine.tiers()[1].traffic.num_damaged == 1


def test_tenants_share_nothing_on_disk_and_are_not_named_there(tmp_path):
    options = {"policy": "tail", "cache_dir": tmp_path}
    with fake_engine(**options) as engine:
        ask(engine, tokens(LENGTH), tenant="a customer")
        assert all("a customer" not in entry.namespace for entry in on_disk(engine).shelf.entries())
    with fake_engine(**options) as engine:
        assert ask(engine, tokens(LENGTH)).report.reused == 0
        assert ask(engine, tokens(LENGTH), tenant="another").report.reused == 0
        assert ask(engine, tokens(LENGTH), tenant="a customer").report.reused == 192


class ChangingModel(SameModel):
    """An admission that sees what it is told to."""

    def __init__(self):
        self.opened = self.identity

    def change(self, content=1, digest=b"other"):
        self.identity = SimpleNamespace(
            content=content,
            digest=digest,
            tenant=lambda name: f"{content}.{digest.hex()}:{name}",
            has_content_of=lambda tenant: tenant.startswith(f"{content}."),
        )

    def is_as_opened(self, identity):
        return identity is self.opened

    def invalidate(self):
        self.change(content=99)


def test_only_the_model_as_it_was_opened_lasts(tmp_path):
    model = ChangingModel()
    with fake_engine(policy="tail", cache_dir=tmp_path, admission=model) as engine:
        ask(engine, tokens(LENGTH))
        model.change()
        engine._served.admission.distrust()
        assert ask(engine, tokens(LENGTH)).report.reused == 0, "an adapter is on"
        assert ask(engine, tokens(LENGTH)).report.reused == 192
        num_kept = len(list(on_disk(engine).shelf.entries()))
        ask(engine, tokens(LENGTH, seed=3))
        assert len(list(on_disk(engine).shelf.entries())) == num_kept
        model.identity = model.opened
        assert ask(engine, tokens(LENGTH)).report.reused == 192, "it is off again"
        model.change(content=2)
        ask(engine, tokens(LENGTH))
        assert not [
            name for name in engine.cache.fastest._store.tree.tenants() if name.startswith("kept:")
        ], "its weights are others by now, and never those again in this process"
        assert len(list(on_disk(engine).shelf.entries())) == num_kept, "the next one may open them"


def test_a_model_that_was_not_what_it_seemed_loses_all_of_it_on_disk_too(tmp_path):
    with fake_engine(policy="tail", cache_dir=tmp_path, admission=ChangingModel()) as engine:
        ask(engine, tokens(LENGTH))
        assert list(on_disk(engine).shelf.entries())
        engine.invalidate()
        assert not list(on_disk(engine).shelf.entries())
        ask(engine, tokens(LENGTH))
        assert not list(on_disk(engine).shelf.entries())


def test_an_audit_checks_what_came_from_the_disk(tmp_path):
    with fake_engine(policy="dense:64", cache_dir=tmp_path) as engine:
        ask(engine, tokens(LENGTH))
    with fake_engine(policy="dense:64", cache_dir=tmp_path, audit=1) as engine:
        assert ask(engine, tokens(LENGTH)).report.reused == 192
        assert engine.audits.num_audits == 1
        assert engine.audits.num_mismatches == 0


def test_a_closed_engine_goes_on_in_memory_alone(tmp_path):
    engine = fake_engine(policy="tail", cache_dir=tmp_path)
    ask(engine, tokens(LENGTH))
    engine.close()
    engine.close()
    assert ask(engine, tokens(LENGTH)).reused_by_tier == {"memory": 192}
    ask(engine, tokens(LENGTH, seed=1))
    with fake_engine(policy="tail", cache_dir=tmp_path) as other:
        assert ask(other, tokens(LENGTH, seed=1)).report.reused == 0


class OnDevice(FakeDriver):
    device = torch.device("cuda")


def test_a_device_has_a_host_between_it_and_the_disk(tmp_path):
    served = fake_model()
    on_device = replace(served, driver=OnDevice())
    asked = CacheRequest(capacity=SMALL, policy="tail", host_capacity="1MiB", cache_dir=tmp_path)
    keeping = keep_in(on_device, asked)
    options = {"audit": Audit(share=0), "max_running": 1}
    with Engine(served, cache=keeping.cache, lasting=keeping.lasting, **options) as engine:
        ask(engine, tokens(LENGTH))
        for seed in range(1, 5):
            ask(engine, tokens(LENGTH, seed=seed))
        assert ask(engine, tokens(LENGTH)).reused_by_tier == {"device": 0, "host": 192}
        assert [tier.name for tier in engine.tiers()] == ["device", "host", "disk"]
    keeping = keep_in(on_device, asked)
    with Engine(served, cache=keeping.cache, lasting=keeping.lasting, **options) as engine:
        assert ask(engine, tokens(LENGTH)).reused_by_tier == {"device": 0, "disk": 192}


def test_a_host_beside_a_device_needs_no_folder():
    served = fake_model()
    on_device = replace(served, driver=OnDevice())
    keeping = keep_in(on_device, CacheRequest(capacity=SMALL, policy="tail", host_capacity=1 << 20))
    engine = Engine(served, cache=keeping.cache, lasting=keeping.lasting, audit=Audit(share=0), max_running=1)
    for seed in range(5):
        ask(engine, tokens(LENGTH, seed=seed), tenant="somebody")
    assert ask(engine, tokens(LENGTH), tenant="somebody").reused_by_tier == {"device": 0, "host": 192}


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"disk_capacity": "1GiB"}, "without a folder"),
        ({"cache_dir": 7}, "path of a folder"),
        ({"cache_dir": "somewhere", "disk_capacity": "much"}, "much"),
        ({"cache_dir": "somewhere", "disk_capacity": -1}, "-1"),
        ({"host_capacity": "1GiB"}, "model on the CPU"),
        ({"host_capacity": "many"}, "many"),
    ],
)
def test_options_that_mean_nothing_are_refused_by_name(places, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        fake_engine(**places)
    assert not list(tmp_path.iterdir()), "no folder was touched"


def test_a_capacity_that_holds_no_checkpoint_is_refused_before_a_folder_is_touched(tmp_path):
    for places in ({"capacity": 100}, {"disk_capacity": 100}):
        with pytest.raises(CapacityError):
            fake_engine(cache_dir=tmp_path / "new", **places)
    assert not (tmp_path / "new").exists()


def test_a_pin_outlives_other_prompts_and_the_report_counts_it(tmp_path):
    with fake_engine(policy="tail", capacity=3 * SMALL) as engine:
        report = ask(engine, tokens(LENGTH), pins=[(100, 300)]).report
        assert report.checkpoints_pinned == 1
        for seed in range(1, 12):
            ask(engine, tokens(LENGTH, seed=seed))
        assert ask(engine, tokens(LENGTH)).report.reused == 96
        with pytest.raises(InvalidRequestError, match="pin"):
            engine.generate(tokens(LENGTH), pins=[(LENGTH + 1, 300)])
