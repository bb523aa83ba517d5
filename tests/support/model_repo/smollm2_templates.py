"""Chat templates for SmolLM2's tokenizer, as models in use have them."""

from typing import Final

MESSAGE: Final = "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>\n' }}"
_CONVERSATION: Final = f"{{% for message in messages %}}{MESSAGE}{{% endfor %}}{{{{ '<|im_start|>assistant\n' }}}}"
_REFUSAL: Final = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
)
NO_SYSTEM: Final = "one without a system message, as Gemma's"
TEMPLATES: Final = {
    "its own": "",
    "one that trims, as Llama 3's": _CONVERSATION,
    NO_SYSTEM: _REFUSAL + _CONVERSATION,
}
"""What a template is like -> the template; empty for that of the checkpoint."""
