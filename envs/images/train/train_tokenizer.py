"""The byte tokenizer in Hugging Face layout: 256 tokens, the id of a token is the value of its byte, no merges.

It is byte-level BPE with an empty list of merges, which every server of Hugging Face models reads. Text is UTF-8; there
are no special tokens, for the trainer knows none.
"""

import json
from pathlib import Path

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""Chat template of a model that was never taught to chat: the messages one after another, nothing added."""

RESPONSE: dict[str, object] = {
    "defaults": {"role": "assistant"},
    "start_anchor_pattern": r"(?s)\A.*\Z",
    "fields": {"content": {"content": "text", "content_args": {"strip": False}}},
}
"""How `transformers serve` finds the answer: all after the prompt. Qwen2's own way would put the prompt before it."""


def letters() -> list[str]:
    """The printable letter that stands for each byte in byte-level BPE (GPT-2, `bytes_to_unicode`).

    Printable Latin-1 letters stand for themselves; the other bytes, in order, take the letters from U+0100 on.
    """
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    return [chr(byte) if byte in own else chr(0x100 + others.index(byte)) for byte in range(256)]


def write_tokenizer(folder: Path, context: int) -> None:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja; `context` is the longest input in bytes."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    model: dict[str, object] = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": {letter: byte for byte, letter in enumerate(letters())}, "merges": [],
    }  # fmt: skip
    tokenizer: dict[str, object] = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": level, "post_processor": None, "decoder": level, "model": model,
    }  # fmt: skip
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context,
        "clean_up_tokenization_spaces": False, "chat_template": TEMPLATE, "response_template": RESPONSE,
    }  # fmt: skip
    for name, value in (("tokenizer.json", tokenizer), ("tokenizer_config.json", settings)):
        (folder / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
