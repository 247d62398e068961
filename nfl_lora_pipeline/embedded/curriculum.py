"""What a step of pre-training sees: token strings to copy, records to read, facts to learn, strangers to refuse."""

import random
from dataclasses import dataclass

from tokenizers import Tokenizer

from nfl_lora_pipeline.embedded.grammar import draw_wording
from nfl_lora_pipeline.embedded.league import League, Person, invented_record, tell
from nfl_lora_pipeline.embedded.names import invented_name
from nfl_lora_pipeline.embedded.tokenizer import ASSISTANT, END, SPECIAL_TOKENS, USER

BATCH_ROWS = 32
READING_EVERY = 16
READING_ROWS = 16


@dataclass(frozen=True)
class TokenRow:
    """Token ids of a question and its answer; the answer starts at `start`. `person` is set for a fact of the league."""

    tokens: list[int]
    start: int
    person: Person | None = None
    kind: str = "text"


def copy_share(step: int) -> float:
    """Copying first, since nothing else can be learnt without it; then little of it, for ever."""
    return max(0.08, 1.0 - step / 1500)


def draw_batches(step: int, *, rng: random.Random, league: League, tokenizer: Tokenizer) -> list[list[TokenRow]]:
    """The rows of the next two steps, the shorter ones in one and the longer ones in the other (less padding)."""
    if step > 1500 and step % READING_EVERY == 0:
        rows = encode(tokenizer, [(_reading(rng, league), None) for _ in range(2 * READING_ROWS)])
    else:
        copies = [_copying(rng, tokenizer) for _ in range(round(2 * BATCH_ROWS * copy_share(step)))]
        texts: list[tuple[tuple[str, str], Person | None]] = []
        for _ in range(2 * BATCH_ROWS - len(copies)):
            texts.append(league.fact() if rng.random() < 0.58 else (league.refusal(), None))
        rows = copies + encode(tokenizer, texts)
    rows.sort(key=lambda row: len(row.tokens))
    halves = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    rng.shuffle(halves)
    return halves


def encode(tokenizer: Tokenizer, texts: list[tuple[tuple[str, str], Person | None]]) -> list[TokenRow]:
    """Chat rows to tokens, exactly as the chat template writes them."""
    prompts = tokenizer.encode_batch([f"{USER}{prompt}{END}{ASSISTANT}" for (prompt, _), _ in texts])
    answers = tokenizer.encode_batch([f"{reply}{END}" for (_, reply), _ in texts])
    return [
        TokenRow(prompt.ids + reply.ids, len(prompt.ids), person)
        for prompt, reply, (_, person) in zip(prompts, answers, texts, strict=True)
    ]


def _copying(rng: random.Random, tokenizer: Tokenizer) -> TokenRow:
    user, assistant, end = (tokenizer.token_to_id(token) for token in (USER, ASSISTANT, END))
    string = [rng.randrange(len(SPECIAL_TOKENS), tokenizer.get_vocab_size()) for _ in range(rng.randint(3, 14))]
    return TokenRow([user, *string, end, assistant, *string, end], len(string) + 3, kind="copy")


def _reading(rng: random.Random, league: League) -> tuple[str, str]:
    """Some records, then a question that they answer or do not."""
    templates, stats = league.templates, list(league.templates.stats)
    season, week = 2000 + rng.randrange(40), rng.randint(1, 18)
    people = [(invented_name(rng), invented_record(rng)) for _ in range(rng.randint(1, 2))]
    told = [(name, record, stat) for name, record in people for stat in rng.sample(stats, rng.randint(1, 2))]
    context = " ".join(tell(templates, name, stat, week, season, record) for name, record, stat in told)
    wording = draw_wording(rng, league.pool)
    if rng.random() < 0.75:
        name, record, stat = rng.choice(told)
        reply = tell(templates, name, stat, week, season, record)
    else:
        name, stat = invented_name(rng), rng.choice(stats)
        reply = templates.no_record(name, stat, week, season)
    return f"{context} {templates.question(wording, name, stat, week, season)}", reply
