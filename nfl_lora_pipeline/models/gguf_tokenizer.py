"""The tokenizer that a GGUF file describes, as the files that `transformers` reads.

A GGUF file holds a vocabulary, merges or scores, and the name of the rule by which text is cut before it is merged. The
names are llama.cpp's, and so is what they stand for; a name that is not known here is refused, since any other rule gives
other ids.

Source: `llm_tokenizer_bpe` and `llm_tokenizer_spm` in https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

CONTROL, USER_DEFINED = 3, 4  # kinds of tokens; control tokens are not printed
SPACE = "\u2581"  # what a space is in the vocabularies of sentencepiece
TURN_ENDS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>")
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
)
_THREE_DIGITS = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{_REST}"
_ONE_DIGIT = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{_REST}"
_TEKKEN = rf"{_CASED}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_DIGITS_FIRST, _AS_GPT2 = "digits first", "as gpt2"  # by parts of `tokenizers`, not by an expression
SPLITS = {
    "gpt-2": _AS_GPT2,
    "smollm": _DIGITS_FIRST,
    "starcoder": _DIGITS_FIRST,
    "llama3": _THREE_DIGITS,
    "llama-v3": _THREE_DIGITS,
    "llama-bpe": _THREE_DIGITS,
    "smaug-bpe": _THREE_DIGITS,
    "qwen2": _ONE_DIGIT,
    "deepseek-r1-qwen": _ONE_DIGIT,
    "tekken": _TEKKEN,
}
MERGES_ASIDE = {
    "llama3",
    "llama-v3",
    "llama-bpe",
    "tekken",
}  # a word that is a token is that token, whatever the merges say
BEGINS_WITH_BOS = {"llama3", "llama-v3", "llama-bpe", "tekken"}  # where the file does not say


class TokenizerFields(NamedTuple):
    """What a GGUF file says of its tokenizer.

    Attributes:
        model: "gpt2" (merges of bytes) or "llama" (sentencepiece's merges by score).
        split: the name of the rule by which text is cut; "" where the file has none.
        tokens: in the order of their ids.
        types: of each token, a number of llama.cpp's.
        scores: of each token, None where the file has none.
        merges: pairs with a space between, best first, None where the file has none.
        ids: by "bos_token", "eos_token", "eot_token", "unk_token" and "pad_token", those that there are.
        flags: "add_bos_token" and "add_space_prefix", where the file has them.
        chat_template: Jinja; "" where the file has none.
        most_tokens: that the model reads.
    """

    model: str
    split: str
    tokens: Sequence[str]
    types: Sequence[int]
    scores: Sequence[float] | None
    merges: Sequence[str] | None
    ids: Mapping[str, int]
    flags: Mapping[str, bool]
    chat_template: str
    most_tokens: int


def write_tokenizer(fields: TokenizerFields, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` into a folder.

    Raises:
        ValueError: a kind of tokenizer, or a rule of cutting text, that is not known here; a list of another length than the
            vocabulary, or merges of what is no token.
    """
    for name, values in (("token_type", fields.types), ("scores", fields.scores)):
        if values is not None and len(values) != len(fields.tokens):
            raise ValueError(f"tokenizer.ggml.{name}: {len(values)} values for {len(fields.tokens)} tokens")
    if fields.model == "gpt2":
        tokenizer = _of_bytes(fields)
    elif fields.model == "llama":
        tokenizer = _of_sentencepiece(fields)
    else:
        raise ValueError(f"tokenizer.ggml.model: {fields.model!r}, not one of gpt2, llama")
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=False, special=kind == CONTROL)
            for token, kind in zip(fields.tokens, fields.types, strict=True)
            if kind in (CONTROL, USER_DEFINED) and token
        ]
    )
    if _begins_with_bos(fields):
        bos = fields.tokens[fields.ids["bos_token"]]
        tokenizer.post_processor = processors.TemplateProcessing(
            f"{bos} $A", f"{bos} $A {bos} $B", [(bos, fields.ids["bos_token"])]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.dumps(_config(fields), indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(config, encoding="utf-8")


def end_tokens(fields: TokenizerFields) -> list[int]:
    """The ids after which generation ends: what the file names, and what llama.cpp knows by name."""
    named = [fields.ids[name] for name in ("eos_token", "eot_token") if name in fields.ids]
    known = [place for place, token in enumerate(fields.tokens) if token in TURN_ENDS]
    return list(dict.fromkeys([*named, *known]))


def _of_bytes(fields: TokenizerFields) -> Tokenizer:
    """Merges over the bytes of words, each byte written as a printable character."""
    if fields.split not in SPLITS:
        raise ValueError(f"tokenizer.ggml.pre: {fields.split!r}, not one of {', '.join(SPLITS)}")
    if fields.merges is None:
        raise ValueError("tokenizer.ggml.merges: the file has no such field")
    merges = [_pair(merge) for merge in fields.merges]
    tokenizer = Tokenizer(_merging(fields, merges, ignore_merges=fields.split in MERGES_ASIDE))
    tokenizer.pre_tokenizer = _cut(SPLITS[fields.split])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _cut(split: str) -> pre_tokenizers.PreTokenizer:
    if split == _AS_GPT2:
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if split == _DIGITS_FIRST:
        first: pre_tokenizers.PreTokenizer = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([first, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    first = pre_tokenizers.Split(Regex(split), behavior="isolated")
    return pre_tokenizers.Sequence([first, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _of_sentencepiece(fields: TokenizerFields) -> Tokenizer:
    """Merges over characters, the pair with the best score first; what has no token is written in bytes."""
    if fields.scores is None:
        raise ValueError("tokenizer.ggml.scores: the file has no such field")
    tokenizer = Tokenizer(_merging(fields, _merges_by_score(fields.tokens, fields.scores), byte_fallback=True))
    spaces: list[normalizers.Normalizer] = [normalizers.Replace(" ", SPACE)]
    parts: list[decoders.Decoder] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if fields.flags.get("add_space_prefix", True):
        spaces.insert(0, normalizers.Prepend(SPACE))
        parts.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer = normalizers.Sequence(spaces)
    tokenizer.decoder = decoders.Sequence(parts)
    return tokenizer


def _merges_by_score(tokens: Sequence[str], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every pair of tokens that makes a token; of two, the one whose token has the better score comes first."""
    known = set(tokens)
    pairs = [
        (-scores[place], place, cut, (token[:cut], token[cut:]))
        for place, token in enumerate(tokens)
        for cut in range(1, len(token))
        if token[:cut] in known and token[cut:] in known
    ]
    return [pair for *_, pair in sorted(pairs)]


def _merging(fields: TokenizerFields, merges: Sequence[tuple[str, str]], **options: bool) -> models.BPE:
    vocabulary = {token: place for place, token in enumerate(fields.tokens)}
    unknown = (
        fields.tokens[fields.ids["unk_token"]] if options.get("byte_fallback") and "unk_token" in fields.ids else None
    )
    try:
        return models.BPE(vocab=vocabulary, merges=list(merges), unk_token=unknown, fuse_unk=True, **options)
    except Exception as error:  # `tokenizers` raises no other
        raise ValueError(f"tokenizer.ggml.merges: {error}") from error


def _begins_with_bos(fields: TokenizerFields) -> bool:
    usual = fields.model == "llama" or fields.split in BEGINS_WITH_BOS
    return "bos_token" in fields.ids and fields.flags.get("add_bos_token", usual)


def _config(fields: TokenizerFields) -> dict[str, object]:
    special = {name: fields.tokens[place] for name, place in fields.ids.items() if name != "eot_token"}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields.most_tokens,
        "chat_template": fields.chat_template or None,
        **special,
    }
