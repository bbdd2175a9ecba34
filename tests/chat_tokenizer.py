"""A tiny real tokenizer, a byte a token, with the chat templates that the tests need."""

from pathlib import Path

SPECIAL = ("<|im_start|>", "<|im_end|>", "<s>")

_TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
_PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_TOOLS = "{% if tools %}tools {{ tools | tojson }}\n{% endif %}"

CHATML = _TOOLS + "{% for m in messages %}" + _TURN + "{% endfor %}" + _PROMPT
# As Qwen3.5: a conversation without a user's turn is an error.
NEEDS_USER = (
    "{% if not messages | selectattr('role', 'equalto', 'user') | list %}"
    "{{ raise_exception('no user query') }}{% endif %}"
) + CHATML
# As Qwen3: only the last answer shows that it thought.
THINKS_LAST = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}" + _PROMPT
)
COUNTS_MESSAGES = "{{ messages | length }} messages\n" + CHATML
CALLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}"
    "{% for k, v in c.function.arguments.items() %}({{ k }}={{ v }}){% endfor %}"
    "{% endfor %}<|im_end|>\n{% endfor %}" + _PROMPT
)


# As of models that also see: a content is a list of parts, and a text of its own is not looked at.
ONLY_PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}" + _PROMPT
)
# As Qwen3's: roles that it does not know are left out without a word.
KNOWN_ROLES = (
    "{% for m in messages %}{% if m.role in ('system', 'user', 'assistant') %}" + _TURN + "{% endif %}"
    "{% endfor %}" + _PROMPT
)
WRITES_BOS = "{{ bos_token }}" + CHATML


def chat_tokenizer(template: str | None = CHATML, *, single: str = "<s> $A"):
    """Return the tokenizer; ``single`` says which special tokens go around a text of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(token, tokenizer.token_to_id(token)) for token in SPECIAL]
    )
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|im_end|>")
    made.chat_template = template
    return made


def write_chat_tokenizer(folder: Path, template: str | None = CHATML) -> Path:
    """Save the tokenizer and return its folder."""
    chat_tokenizer(template).save_pretrained(folder)
    return folder
