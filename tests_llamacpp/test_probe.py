"""What holds for a model is found out when it is opened, and a probe that cannot fail is none."""

import json

import pytest
from benchmarks.llamacpp.families import FAMILIES
from typer.testing import CliRunner

from milepost.cli.program import app
from milepost.engines.llamacpp import probe as probing
from milepost.engines.llamacpp.probe import measure_resume, probe
from milepost.engines.llamacpp.transfer import Transfer
from milepost.errors import UnsupportedModelError


@pytest.mark.parametrize("weights", ["f32", "f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes_in_every_number_format(open_driver, family, weights):
    report = probe(open_driver(family, weights), is_strict=True)

    assert report.verdict == "passed"
    assert report.cut_distance == report.resume_distance == 0
    assert report.is_repeatable
    assert report.lost_state_distance > 100 * report.rounding_distance


@pytest.mark.parametrize("family", ["llama", "qwen35"])
def test_the_control_a_piece_of_one_token_is_seen(open_driver, family, monkeypatch):
    monkeypatch.setattr(probing, "_CUTS", (0, 37, 38, 83, 93, 95, 97))

    with pytest.raises(UnsupportedModelError, match=r"cut into pieces .* open it with numerics='fast'"):
        probe(open_driver(family), is_strict=True)
    assert probe(open_driver(family, is_strict=False), is_strict=False).cut_distance > 0


def test_the_control_a_state_that_is_not_put_back_is_seen(open_driver, monkeypatch):
    kept = Transfer.state

    def first(self, context, sequence, *, spare, position):
        # Whatever is asked for, the state that was seen first.
        state = kept(self, context, sequence, spare=spare, position=position)
        seen.setdefault(position, state)
        return seen[position]

    seen = {}
    monkeypatch.setattr(Transfer, "state", first)
    report = measure_resume(open_driver("mamba2"), is_strict=True)

    # The foreign prompt has the state of the first, so a lost state does not show.
    assert report.verdict == "undecided"
    assert "not tested" in report.refusal


def test_a_model_whose_logits_are_no_numbers_is_refused(open_driver, monkeypatch):
    driver = open_driver("mamba2")
    advance = type(driver).advance
    monkeypatch.setattr(type(driver), "advance", lambda *args: advance(*args) * float("nan"))

    with pytest.raises(UnsupportedModelError, match="not finite"):
        probe(driver, is_strict=True)


def test_the_command_says_what_was_measured(gguf):
    done = CliRunner().invoke(app, ["probe", str(gguf("lfm2")), "--json"])

    assert done.exit_code == 0
    assert json.loads(done.stdout)["verdict"] == "passed"


def test_the_command_says_what_it_costs(gguf):
    done = CliRunner().invoke(app, ["footprint", str(gguf("lfm2")), "--json"])

    facts = json.loads(done.stdout)
    assert facts["checkpoint_bytes"] > 0
    assert facts["checkpoint_kv_tokens"] == round(facts["checkpoint_bytes"] / facts["kv_bytes_per_token"])
