"""Chat templates of several habits, written for the tests."""

PLAIN = """{%- for m in messages %}
{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

TOOLS = """{%- if tools %}{{- '<|im_start|>system\\n' }}{%- for t in tools %}{{- (t | tojson) + '\\n' }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
{{- '\\nresult ' + m.tool_call_id + ': ' + m.content }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- else %}
{{- '<|im_start|>' + m.role + '\\n' + m.content }}
{%- for c in m.tool_calls or [] %}{{- '\\ncall ' + c.function.name + ' ' + ARGUMENTS }}{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

OBJECT_TOOLS = TOOLS.replace("ARGUMENTS", "(c.function.arguments | tojson)")
TEXT_TOOLS = TOOLS.replace("ARGUMENTS", "c.function.arguments")
PYTHON_TOOLS = TOOLS.replace("ARGUMENTS", "(c.function.arguments | string)")
NAMELESS_TOOLS = TOOLS.replace("c.function.name", "c.name").replace("ARGUMENTS", "(c.function.arguments | tojson)")
DECLARATIONS_ONLY = TOOLS.replace("{%- for c in m.tool_calls or [] %}{{- '\\ncall ' + c.function.name + ' ' + ARGUMENTS }}{%- endfor %}", "")

NO_SYSTEM = "{%- if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{%- endif %}" + PLAIN
"""Refuses a system turn, as Gemma's templates do."""

TRIMMED = PLAIN.replace("m['content']", "(m['content'] | trim)")
NUMBERED = PLAIN.replace("m['role'] +", "m['role'] + (' the' * loop.index if m.role == 'user' else '') +")
"""Writes another text before each question."""
