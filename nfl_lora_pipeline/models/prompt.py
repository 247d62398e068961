"""How a chat is written for a base model."""

from collections.abc import Mapping, Sequence
from typing import Any

ANSWER_TOKENS = 128  # of an answer, at most


def prompt_tokens(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """A chat up to where the model goes on.

    Raises:
        ValueError: the chat template does not take these messages.
    """
    try:
        chat = [dict(message) for message in messages]
        return list(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))
    except Exception as error:  # a template is a program, and raises what it likes
        raise ValueError(f"the chat template of this base model cannot be rendered: {error}") from error
