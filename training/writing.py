"""The model as files: what ``from_pretrained`` opens, and nothing that this machine alone would know."""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerFast, Qwen3_5ForCausalLM

__all__ = ["write_model"]


def write_model(model: Qwen3_5ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights, configuration, tokenizer and chat template into a folder, readable by everybody."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": tokenizer.eos_token,
            "clean_up_tokenization_spaces": False,
            "model_max_length": model.config.max_position_embeddings,
        },
    )
    # An answer that is copied has one likeliest next token; anything drawn beside it would be an error.
    _write_json(
        folder / "generation_config.json", {"do_sample": False, "eos_token_id": model.config.eos_token_id}
    )
    for path in folder.iterdir():
        path.chmod(0o644)


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
