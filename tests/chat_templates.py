"""The chat templates of well-known models, and small tokenizers that have their special tokens. For tests.

Each template is the public one, shortened where it handles tools, images or documents.
"""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.tiny_models import TEXTS
from whetstone.chat import Chat, Exchange, Taught
from whetstone.records import Message

PHI4_MINI = (
    "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none "
    "%}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}"
    "{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}

{#- This block extracts the system message, so we can slot it into the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
R1_DISTILL = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}"
    "{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}"
    "{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']}}{%- endif %}"
    "{%- if message['role'] == 'assistant' and message['content'] is not none %}"
    "{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}"
    "{% endif %}{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor -%}"
    "{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)
QWEN2 = CHATML.replace(
    "a helpful AI assistant named SmolLM, trained by Hugging Face", "Qwen, created by Alibaba Cloud."
)
QWEN3 = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""  # noqa: E501
_SWITCH = QWEN3[QWEN3.index("    {%- if enable_thinking") :]
QWEN35 = QWEN3.replace(
    _SWITCH,
    "    {%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- else %}{{- '<think>\\n' }}{%- endif %}{%- endif %}",
)
QWEN35_SMALL = QWEN3.replace(  # the small ones think only if they are told to
    _SWITCH,
    "    {%- if enable_thinking is defined and enable_thinking is true %}"
    "{{- '<think>\\n' }}{%- else %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}",
)
GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
"""
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + '[/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
COMMAND_R7B = (  # two tokens end a turn
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'assistant' %}<|START_OF_TURN_TOKEN|>"
    "<|CHATBOT_TOKEN|><|START_RESPONSE|>{{ message.content }}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>{% else %}"
    "<|START_OF_TURN_TOKEN|>{{ '<|USER_TOKEN|>' if message.role == 'user' else '<|SYSTEM_TOKEN|>' }}{{ message.content }}"
    "<|END_OF_TURN_TOKEN|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
)
GPT_OSS = (  # the last turn ends with another token than those before it
    "{% for message in messages %}{% if message.role == 'assistant' %}<|start|>assistant<|channel|>final<|message|>"
    "{{ message.content }}{{ '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}{% else %}"
    "<|start|>{{ message.role }}<|message|>{{ message.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
GLM4 = (  # nothing ends a turn
    "[gMASK]<sop>{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
ALPACA = (  # text alone
    "{% for message in messages %}{% if message.role == 'user' %}### Instruction:\n{{ message.content }}\n\n"
    "{% else %}### Response:\n{{ message.content }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}"
)
PHI3 = (  # its tokens take the white space that follows them
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token }}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
LLAMA2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + message['content'] | trim "
    "+ ' [/INST]' }}{% else %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
VICUNA = (
    "{{ bos_token }}A chat. {% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }} {% else %}"
    "ASSISTANT: {{ m.content }}</s>{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
NO_HEADER = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"  # the model writes it
)
SPACING = {  # templates and special tokens that differ in the white space between turns; the first token is bos
    "phi-3": (PHI3, ("<s>", "<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>")),
    "zephyr": (ZEPHYR, ("<s>", "</s>")),
    "llama-2": (LLAMA2, ("<s>", "</s>")),
    "vicuna": (VICUNA, ("<s>", "</s>")),
    "no header": (NO_HEADER, ("<|im_start|>", "<|im_end|>")),
}
NEWLINE_BEFORE_END = CHATML.replace("message['content'] + '<|im_end|>'", "message['content'] + '\n<|im_end|>'")

THINK = ("<think>", "</think>")
TOKENS = {  # name -> (template, special tokens, other added tokens, bos, eos)
    "phi-4-mini": (
        PHI4_MINI, ("<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>", "<|system|>"), (), "<|endoftext|>",
        "<|endoftext|>",
    ),
    "smollm2": (CHATML, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), (), "<|im_start|>", "<|im_end|>"),
    "llama-3": (
        LLAMA3, ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), (),
        "<|begin_of_text|>", "<|eot_id|>",
    ),
    "r1-distill": (
        R1_DISTILL, ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"), ("<｜User｜>", "<｜Assistant｜>", *THINK),
        "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>",
    ),
    "qwen2": (QWEN2, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), (), None, "<|im_end|>"),
    "qwen3": (QWEN3, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), THINK, None, "<|im_end|>"),
    "qwen3.5": (QWEN35, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), THINK, None, "<|im_end|>"),
    "qwen3.5-small": (QWEN35_SMALL, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), THINK, None, "<|im_end|>"),
    "gemma": (GEMMA, ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), ("\n",), "<bos>", "<eos>"),
    "mistral": (MISTRAL, ("<s>", "</s>", "[INST]", "[/INST]"), (), "<s>", "</s>"),
    "command-r7b": (
        COMMAND_R7B,
        ("<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>",
         "<|SYSTEM_TOKEN|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        (), "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>",
    ),
    "gpt-oss": (
        GPT_OSS, ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|startoftext|>"), (),
        "<|startoftext|>", "<|return|>",
    ),
    "glm-4": (GLM4, ("<|endoftext|>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>"), (), None, "<|endoftext|>"),
    "alpaca": (ALPACA, ("<s>", "</s>"), (), "<s>", "</s>"),
    "newline before end": (
        NEWLINE_BEFORE_END, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), (), None, "<|endoftext|>"
    ),
    "chatml without its tokens": (CHATML, ("<|endoftext|>",), (), None, "<|endoftext|>"),
}  # fmt: skip
GENERATION_EOS = {"phi-4-mini": ("<|end|>", "<|endoftext|>"), "gemma": ("<eos>", "<end_of_turn>")}
ENDS = {  # what ends a turn, and all that ends a completion
    "phi-4-mini": ("<|end|>", "<|endoftext|>"),
    "smollm2": ("<|im_end|>",),
    "llama-3": ("<|eot_id|>",),
    "r1-distill": ("<｜end▁of▁sentence｜>",),
    "qwen2": ("<|im_end|>",),
    "qwen3": ("<|im_end|>",),
    "qwen3.5": ("<|im_end|>",),
    "qwen3.5-small": ("<|im_end|>",),
    "gemma": ("<end_of_turn>", "<eos>"),
    "mistral": ("</s>",),
    "command-r7b": ("<|END_OF_TURN_TOKEN|>",),
    "gpt-oss": ("<|return|>",),
    "glm-4": ("<|endoftext|>",),
    "alpaca": ("</s>",),
    "newline before end": ("<|im_end|>", "<|endoftext|>"),
    "chatml without its tokens": ("<|endoftext|>",),
}


def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the tokens and the template of a well-known model."""
    template, special, added, bos, eos = TOKENS[kind]
    tokenizer = byte_level(special, added)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, pad_token=eos, chat_template=template,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def spacing_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    template, (bos, eos, *more) = SPACING[kind]
    tokenizer = byte_level((bos,))
    following = [AddedToken(name, normalized=False, special=True, rstrip=kind == "phi-3") for name in (eos, *more)]
    tokenizer.add_special_tokens(following)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, chat_template=template)


def byte_level(special: tuple[str, ...], added: tuple[str, ...] = (), vocabulary: int = 300) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in special])
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in added])
    return tokenizer


def generation_eos(kind: str, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The eos ids of the model's generation_config."""
    return tokenizer.convert_tokens_to_ids(list(GENERATION_EOS.get(kind, ())))


def chat_of(kind: str) -> Chat:
    tokenizer = tokenizer_of(kind)
    return Chat(tokenizer, generation_eos(kind, tokenizer))


def taught(chat: Chat, answer: str, question: str = "1 + 1?", system: str = "") -> Taught | str:
    start = (Message("system", system),) if system else ()
    (row,) = chat.rows([Exchange((*start, Message("user", question)), answer)])
    return row
