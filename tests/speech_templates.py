"""Chat templates with the marks of model families, in few words, and what their models write."""

_TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
_BEGIN = "{% if add_generation_prompt %}<|im_start|>assistant\n"
_TOOLS = "{% if tools %}<tools>{{ tools | tojson }}</tools>\n{% endif %}"
_LAST_USER = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
)

# Of one family: trimmed, thoughts before the last question left out, calls in XML, reasoning begun or closed.
XML = (
    _TOOLS + _LAST_USER + "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "{% if loop.index0 > ns.last or keep_thoughts %}"
    "<think>\n{{ (m.reasoning_content or '') | trim }}\n</think>\n\n{% endif %}{{ m.content | trim }}"
    "{% for c in m.tool_calls or [] %}"
    "{% if not loop.first %}{{ '\n' }}{% elif m.content | trim %}{{ '\n\n' }}{% endif %}"
    "<tool_call>\n<function={{ c.function.name }}>\n{% for k, v in c.function.arguments | items %}"
    "<parameter={{ k }}>\n{{ v if v is string else v | tojson }}\n</parameter>\n{% endfor %}"
    "</function>\n</tool_call>{% endfor %}<|im_end|>\n"
    "{% else %}"
    + _TURN
    + "{% endif %}{% endfor %}"
    + _BEGIN
    + "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}{% endif %}"
)
# Of another: calls as JSON, a text of arguments taken as it is, nothing begun.
JSON = (
    _TOOLS + "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{% if not loop.first or m.content %}{{ '\n' }}{% endif %}"
    '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": '
    "{{ c.function.arguments if c.function.arguments is string else c.function.arguments | tojson }}}\n"
    "</tool_call>{% endfor %}<|im_end|>\n"
    "{% else %}" + _TURN + "{% endif %}{% endfor %}" + _BEGIN + "{% endif %}"
)
# Of a third: nothing is trimmed, calls are a list as Python has them.
PYTHON = (
    _TOOLS + "{% macro shown(v) %}{% if v is string %}'{{ v }}'{% else %}{{ v }}{% endif %}{% endmacro %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}"
    "{% if m.tool_calls %}<|tool_call_start|>[{% for c in m.tool_calls %}{% if not loop.first %}, {% endif %}"
    "{{ c.function.name }}({% for k, v in c.function.arguments.items() %}"
    "{% if not loop.first %}, {% endif %}{{ k }}={{ shown(v) }}{% endfor %}){% endfor %}]<|tool_call_end|>"
    "{% endif %}<|im_end|>\n{% else %}" + _TURN + "{% endif %}{% endfor %}" + _BEGIN + "{% endif %}"
)
# Of a fourth: calls have the model's own ids.
SECTIONS = (
    _TOOLS + "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "<think>{{ m.reasoning_content or '' }}</think>{{ m.content }}"
    "{% if m.tool_calls %}<|tool_calls_section_begin|>{% for c in m.tool_calls %}"
    "<|tool_call_begin|>{{ c.id }}<|tool_call_argument_begin|>"
    "{{ c.function.arguments if c.function.arguments is string else c.function.arguments | tojson }}"
    "<|tool_call_end|>{% endfor %}<|tool_calls_section_end|>{% endif %}<|im_end|>\n"
    "{% else %}" + _TURN + "{% endif %}{% endfor %}" + _BEGIN + "{% endif %}"
)
# Of a fifth: a list of JSON, and a line end after the calls.
LIST = (
    _TOOLS + "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "<think>\n{{ m.reasoning_content or '' }}\n</think>\n{{ m.content | trim }}"
    "{% if m.tool_calls %}{{ '\n\n' }}<TOOLCALL>["
    "{% for c in m.tool_calls %}{% if not loop.first %}, {% endif %}"
    '{"name": "{{ c.function.name }}", "arguments": '
    "{{ c.function.arguments if c.function.arguments is string else c.function.arguments | tojson }}}"
    "{% endfor %}]</TOOLCALL>{% endif %}{{ '\n' }}<|im_end|>\n"
    "{% else %}" + _TURN + "{% endif %}{% endfor %}" + _BEGIN + "<think>\n{% endif %}"
)

ALL = {"xml": XML, "json": JSON, "python": PYTHON, "sections": SECTIONS, "list": LIST}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "read",
            "description": "Read a file.",
            "parameters": {
                "type": "object",
                "properties": {
                    "path": {"type": "string"},
                    "lines": {"type": "integer"},
                    "all": {"type": "boolean"},
                },
            },
        },
    },
]
