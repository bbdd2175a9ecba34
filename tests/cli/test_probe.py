"""``milepost probe``: three verdicts, three words, three exit codes, the same in text and in JSON."""

import json

import pytest
import torch
from typer.testing import CliRunner

from families import tiny_model
from milepost.cli.program import app

torch.set_num_threads(1)


def ignoring_its_state():
    model = tiny_model("mamba2")
    with torch.no_grad():
        for block in model.backbone.layers:
            block.mixer.out_proj.weight.zero_()
    return model


def with_broken_logits():
    model = tiny_model("mamba2")
    with torch.no_grad():
        model.lm_head.weight[5] = torch.nan
    return model


@pytest.mark.parametrize(
    ("make", "verdict", "exit_code", "says"),
    [
        (lambda: tiny_model("mamba2"), "passed", 0, None),
        (with_broken_logits, "refused", 1, "its logits are not finite"),
        (ignoring_its_state, "undecided", 3, "not tested: zeroing its state moves the logits by 0"),
    ],
    ids=["passed", "refused", "undecided"],
)
def test_the_verdict_is_said_and_is_the_exit_code(make, verdict, exit_code, says, tmp_path):
    make().save_pretrained(tmp_path)

    text = CliRunner().invoke(app, ["probe", str(tmp_path)])
    assert text.exit_code == exit_code
    assert f"verdict                      {verdict}" in text.stdout
    assert (f"mamba2 is {verdict}: {says}" if says else "") in text.stderr
    assert ("mamba2 is" in text.stderr) == bool(says)

    output = CliRunner().invoke(app, ["probe", str(tmp_path), "--json"]).stdout
    report = json.loads(output, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert report["verdict"] == verdict
    assert (report["refusal"] or "").startswith(says or "")
    assert report["checkpoint_bytes"] > 0
