"""``milepost probe``."""

import json
from dataclasses import asdict

from milepost.cli.options import Json, ModelArgument

__all__ = ["probe"]


def probe(model: ModelArgument, as_json: Json = False) -> None:
    """Prove on a model that it resumes exactly, or say why it cannot be used. Takes ten short prefills.

    Try: `milepost probe Qwen/Qwen3.5-0.8B`
    """
    from milepost.demo.embedded_model import resolve_model
    from milepost.engines.transformers.families import driver_for
    from milepost.engines.transformers.loading import load_model
    from milepost.engines.transformers.probe import probe_resume

    report = asdict(probe_resume(driver_for(load_model(resolve_model(model)[0]).model)))
    if as_json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name:28} {value}")
