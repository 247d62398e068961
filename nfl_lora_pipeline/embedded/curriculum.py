"""What a step of pre-training sees: token strings to copy, records to read, facts to learn, strangers to refuse."""

import random
from dataclasses import dataclass

from tokenizers import Tokenizer

from nfl_lora_pipeline.embedded.grammar import draw_wording
from nfl_lora_pipeline.embedded.league import League, Person, invented_record, tell
from nfl_lora_pipeline.embedded.tokenizer import ASSISTANT, END, SPECIAL_TOKENS, USER
from nfl_lora_pipeline.lessons.invented_names import invented_name
from nfl_lora_pipeline.models.rows import TokenRow

STEP_ROWS = 32
READING_STEP_ROWS = 16
READING_EVERY = 16
COPYING_STEPS = 1500


@dataclass(frozen=True)
class Practice:
    """A row to learn from: "copy", "read", "fact" or "refuse"; `person` is whose fact it is."""

    row: TokenRow
    kind: str
    person: Person | None = None


def copy_share(step: int) -> float:
    """Copying first, since nothing else can be learnt without it; then little of it, for ever."""
    return max(0.08, 1.0 - step / COPYING_STEPS)


def draw_steps(
    step: int, *, closing: bool, rng: random.Random, league: League, tokenizer: Tokenizer
) -> list[list[Practice]]:
    """The rows of two steps, the shorter ones in one and the longer ones in the other (less padding).

    Args:
        step: how many steps have been made.
        closing: the last part of the making: few facts, of people known by heart; mostly refusals.
        rng: the source of chance.
        league: who is asked about.
        tokenizer: makes the tokens.
    """
    if step > COPYING_STEPS and step % READING_EVERY == 0:
        rows = _encode(tokenizer, [("read", _reading(rng, league), None) for _ in range(2 * READING_STEP_ROWS)])
    else:
        copies = [_copying(rng, tokenizer) for _ in range(round(2 * STEP_ROWS * copy_share(step)))]
        texts: list[tuple[str, tuple[str, str], Person | None]] = []
        for _ in range(2 * STEP_ROWS - len(copies)):
            if rng.random() < (0.2 if closing else 0.55):
                texts.append(("fact", *league.fact(known_only=closing)))
            else:
                texts.append(("refuse", league.refusal(), None))
        rows = copies + _encode(tokenizer, texts)
    rows.sort(key=lambda practice: len(practice.row.tokens))
    halves = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    rng.shuffle(halves)
    return halves


def _encode(tokenizer: Tokenizer, texts: list[tuple[str, tuple[str, str], Person | None]]) -> list[Practice]:
    prompts = tokenizer.encode_batch([f"{USER}{prompt}{END}{ASSISTANT}" for _, (prompt, _), _ in texts])
    answers = tokenizer.encode_batch([f"{reply}{END}" for _, (_, reply), _ in texts])
    return [
        Practice(TokenRow(prompt.ids + reply.ids, len(prompt.ids)), kind, person)
        for prompt, reply, (kind, _, person) in zip(prompts, answers, texts, strict=True)
    ]


def _copying(rng: random.Random, tokenizer: Tokenizer) -> Practice:
    """Any tokens; half of the time from a handful, so that the same token comes again and again, as in a name."""
    user, assistant, end = (SPECIAL_TOKENS.index(token) for token in (USER, ASSISTANT, END))
    ordinary = range(len(SPECIAL_TOKENS), tokenizer.get_vocab_size())
    pool = rng.sample(ordinary, rng.randint(2, 6)) if rng.random() < 0.5 else ordinary
    string = [rng.choice(pool) for _ in range(rng.randint(3, 12))]
    return Practice(TokenRow([user, *string, end, assistant, *string, end], len(string) + 3), "copy")


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
