"""The tokenizer: byte-level BPE, learned from the corpus, with the marks of a conversation."""

from collections.abc import Iterable

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

__all__ = ["CHAT_TEMPLATE", "END", "ROLE_MARKS", "learn_tokenizer"]

END = "<|end|>"
ROLE_MARKS = {role: f"<|{role}|>" for role in ("system", "user", "assistant")}
_VOCABULARY = 2_048
# Words with their leading space, digits one by one, punctuation, newlines one by one, an indentation as a
# whole: a line is written alike wherever it is quoted.
_PIECES = r" ?[^\W\d]+| ?\d| ?[^\s\w]+|\n|[^\S\n]+(?=[^\s])|[^\S\n]+"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def learn_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer for the texts; the same texts give the same one."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[END, *ROLE_MARKS.values()],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
