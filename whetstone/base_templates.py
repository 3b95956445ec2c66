"""Chat templates for base models that have none, by name (`[model] chat_template`).

Before each stands what the tokenizer itself writes before a text (bos), if it writes something. Those with control tokens
suit a model whose tokenizer has these, or gets them as new tokens; in the others the tokenizer's eos ends an answer.
"""

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
GEMMA = (
    "{% set first = messages[0]['content'] + '\\n\\n' if messages[0]['role'] == 'system' else '' %}"
    "{% for message in messages if message['role'] != 'system' %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' }}"
    "{{ (first if loop.first else '') + message['content'] + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{ message['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
QUESTION_ANSWER = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ 'Answer: ' + message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'Question: ' + message['content'] + '\\n' }}"
    "{% else %}{{ message['content'] + '\\n\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"
)
PLAIN = "{% for message in messages %}{{ message['content'] + '\\n' }}{% endfor %}"

SHIPPED = {
    "chatml": CHATML,
    "gemma": GEMMA,
    "llama3": LLAMA3,
    "question_answer": QUESTION_ANSWER,
    "plain": PLAIN,
}
CHOICE = f"{', '.join(SHIPPED)}, or a .jinja file of your own"
