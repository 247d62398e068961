"""How a chat is written for a base model. One way for training, evaluation, `ask`, server and export: what a training row
begins with is what generation is given, and what follows is what generation must give.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Literal, Protocol

import yaml

from nfl_lora_pipeline.weeks.names import as_typed

ANSWER_TOKENS = 128  # of an answer, at most; a name of 100 letters, one token each, fits
SHOUTED_WORDS = 4  # so many in capitals are no abbreviation
MEND = "use a base model that was made for chats, or another chat template"
_LEFT_OPEN = re.compile(r"<(\w+)>(?!.*</\1>)", re.DOTALL)


class Tokenizer(Protocol):
    """What is used of a tokenizer of `mlx_lm.load`, which is a `TokenizerWrapper` around one of transformers."""

    @property
    def eos_token_id(self) -> int:
        """The token that ends an answer."""

    @property
    def eos_token_ids(self) -> set[int]:
        """All tokens that end one."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """From a text to tokens."""

    def decode(self, tokens: Sequence[int]) -> str:
        """And back."""

    def apply_chat_template(
        self, conversation: Sequence[Mapping[str, str]], *, add_generation_prompt: bool, tokenize: bool
    ) -> str:
        """A chat as text, where `tokenize` is false."""


def prompt_tokens(tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]], *, as_it_is: bool = False) -> list[int]:
    """A chat up to where the model goes on.

    Args:
        tokenizer: of `mlx_lm.load`.
        messages: each with `role` and `content`. What the user wrote is taken as from a plain keyboard (`names.as_typed`), and
            not all in capitals.
        as_it_is: leave even that, blanks and all, to the model.

    Raises:
        ValueError: the base model has no chat template, or it does not take these messages.
    """
    return _encoded(tokenizer, _written(tokenizer, messages, as_it_is=as_it_is))


def answered_tokens(
    tokenizer: Tokenizer, question: str, answer: str, *, as_it_is: bool = False
) -> tuple[list[int], int]:
    """A question, the answer and the end of the answer, and the place where the answer begins.

    `as_it_is` is that of `prompt_tokens`.

    What a template writes into a finished turn besides the answer (Qwen3's empty thought) is left out: a model is never asked
    to generate it, and it would be printed.

    Raises:
        ValueError: the chat template does not fit: it cannot be rendered, opens a thought that the answer would stand in, or
            its end and the answer's beginning run into one token.
    """
    asked = [{"role": "user", "content": question}]
    written = _written(tokenizer, asked, as_it_is=as_it_is)
    turns = [*asked, {"role": "assistant", "content": answer}]
    finished = _written(tokenizer, turns, is_finished=True, as_it_is=as_it_is)
    before, found, after = finished.rpartition(answer)
    before, after = (before, after) if found else (written, "")
    if opened := _LEFT_OPEN.search(_beyond(written, before)):
        raise _unfit(f"its answers begin within {opened[0]}", question)
    between = _beyond(before, written)
    prompt = _encoded(tokenizer, written)
    tokens = _encoded(tokenizer, f"{written}{'' if between.strip() else between}{answer}")
    if tokens[: len(prompt)] != prompt:
        raise _unfit("the question reads otherwise with an answer behind it", question)
    ends = (token for token in _encoded(tokenizer, after) if token in tokenizer.eos_token_ids)
    return [*tokens, next(ends, tokenizer.eos_token_id)], len(prompt)


def _beyond(text: str, start: str) -> str:
    """What a text goes on with behind `start`; nothing where it begins otherwise."""
    return text.removeprefix(start) if text.startswith(start) else ""


def _written(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, str]],
    *,
    is_finished: bool = False,
    as_it_is: bool = False,
) -> str:
    typed = [
        {**message, "content": _calmly(as_typed(message["content"]))}
        if message["role"] == "user" and not as_it_is
        else {**message}
        for message in messages
    ]
    if getattr(tokenizer, "has_chat_template", True) is False:
        raise ValueError(f"this base model has no chat template: {MEND}")
    try:
        written = tokenizer.apply_chat_template(typed, add_generation_prompt=not is_finished, tokenize=False)
    except Exception as error:  # a template is a program, and raises what it likes
        raise ValueError(f"the chat template of this base model cannot be rendered: {error}; {MEND}") from error
    return written


def _calmly(text: str) -> str:
    """A question that is typed all in capitals, in lower case: that is mere typing, and a tokenizer makes letters of it."""
    return text.lower() if text.isupper() and len(text.split()) >= SHOUTED_WORDS else text


def _encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def _unfit(problem: str, question: str) -> ValueError:
    return ValueError(f"the chat template of this base model does not fit: {problem} ({question!r}); {MEND}")


@cache
def general_prompts(part: Literal["asked", "rehearsed"]) -> list[str]:
    """The requests of `general_prompts.yaml` that a tuned model is asked, or those whose answers are rehearsed."""
    text = (files("nfl_lora_pipeline") / "general_prompts.yaml").read_text(encoding="utf-8")
    requests: list[str] = yaml.safe_load(text)[part]
    return requests
