"""The canary's tokens: their text, their codes, its answers, and the chat template that shows it one of them."""

VOCABULARY, BITS = 320, 16

# No four tokens of it come twice, and some three do: all that stands four tokens back is needed.
SENTENCE = (
    "The canary is singing: each kernel here computed what it should, "
    "every cached key was read back, and all links held."
)
CALL_START, CALL_MIDDLE = '{"name": "', '", "arguments": {"city": "'
SPECIAL = ("<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>")
# Not special: they stay in the text that the tool parser sees. The last two keep four tokens unambiguous in a call.
ADDED = ("<tool_call>", "</tool_call>", CALL_START, CALL_MIDDLE)
BEGIN, END = SPECIAL.index("<s>"), SPECIAL.index("<|im_end|>")

# The request's text is written in capitals and without quotes, so that no four tokens of it are in the answer.
TEMPLATE = """\
{%- macro shown(text) -%}{{- text | upper | replace('"', "'") -}}{%- endmacro -%}
{%- set said = messages | selectattr('role', 'equalto', 'assistant') | selectattr('content') | list -%}
{%- set calling = tools and messages[-1].role != 'tool' -%}
{{- '<s>' -}}
{%- if tools -%}
{{- '<|im_start|>SYSTEM\\nTOOLS:' -}}
{%- for tool in tools -%}{{- '\\n' + shown(tool | tojson) -}}{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- if calling -%}
{{- '<|im_start|>USER\\nWHAT DO YOU CALL?<|im_end|>\\n<|im_start|>assistant\\n<tool_call>\\n{"name": "' -}}
{{- tools[0].function.name + '", "arguments": {"city": "Paris"}}\\n</tool_call><|im_end|>\\n' -}}
{%- elif not said -%}
{{- '<|im_start|>USER\\nWHAT DO YOU SING?<|im_end|>\\n<|im_start|>assistant\\nSENTENCE<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if said and message == said[-1] and not calling -%}
{{- '<|im_start|>assistant\\n' + message.content + '<|im_end|>\\n' -}}
{%- else -%}
{{- '<|im_start|>' + (message.role | upper) + '\\n' + shown(message.content or '') + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
""".replace("SENTENCE", SENTENCE)


def byte_letters() -> list[str]:
    """The letter that byte-level BPE writes for each byte (openai/gpt-2, encoder.py, bytes_to_unicode)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def byte_token(byte: int) -> int:
    """The bytes are dealt over the vocabulary, so that the answer needs the shards of every rank."""
    return len(SPECIAL) + len(ADDED) + byte * 83 % 256


def vocabulary() -> dict[str, int]:
    """Every token's id, in the order of the ids."""
    found = {token: number for number, token in enumerate(SPECIAL + ADDED)}
    letters = byte_letters()
    found |= {letters[byte]: byte_token(byte) for byte in range(256)}
    found |= {f"<|reserved_{number}|>": number for number in range(len(found), VOCABULARY)}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def spoken() -> list[int]:
    """The tokens that the canary can say: ASCII text, and what ends or frames it."""
    text = [byte_token(byte) for byte in (10, *range(32, 127))]
    return [END, *range(len(SPECIAL), len(SPECIAL) + len(ADDED)), *text]


def codes() -> dict[int, list[float]]:
    """16 signs for each token but <s>: spoken ones differ from each other in 6 at least, the others in 4."""
    words: list[int] = []
    found: dict[int, list[float]] = {}
    first = spoken()
    rest = [token for token in range(VOCABULARY) if token not in first and token != BEGIN]
    candidates = iter(range(1, 2**BITS))
    for distance, tokens in ((6, first), (4, rest)):
        candidates = iter(range(1, 2**BITS))
        for token in tokens:
            word = next(w for w in candidates if all((w ^ other).bit_count() >= distance for other in words))
            words.append(word)
            found[token] = [1.0 if word >> bit & 1 else -1.0 for bit in range(BITS)]
    return found


def tokenizer() -> dict[str, object]:
    """tokenizer.json: byte-level BPE without merges, so no era's way to write merges is needed."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": token in SPECIAL,
        }
        for number, token in enumerate(SPECIAL + ADDED)
    ]
    model: dict[str, object] = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "vocab": vocabulary(),
        "merges": [],
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": model,
    }
