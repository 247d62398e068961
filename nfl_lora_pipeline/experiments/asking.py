"""What a trial asks of whoever answers in it: all groups of the evaluation at once, or a sample one by one.

One by one is tuning against retrieval: the same questions to a tuned model, to its base that reads, and to a table. They are
a sample by the trial's seed, the same for all arms: facts as they are taught or in a held-out wording, facts with a typo or by
the last name alone, and people who do not exist. A table and a retrieval know the whole week.
"""

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from nfl_lora_pipeline.dataset.people import share
from nfl_lora_pipeline.dataset.templates import Templates
from nfl_lora_pipeline.evaluation import baselines
from nfl_lora_pipeline.evaluation.baselines import (
    Answer,
    FactTable,
    Retrieve,
    SequentialModel,
    Way,
    context_tokens,
    facts_in,
    pays_off_after,
    sample,
    strangers_in,
    with_context,
)
from nfl_lora_pipeline.evaluation.probes import ENOUGH, FIRST, KNOWN, in_turn, of_the_splits, probe_questions
from nfl_lora_pipeline.experiments.study import Sample, Trial
from nfl_lora_pipeline.experiments.trial import Fetch, Material, Result, Say, fingerprint_of, is_trained, rows_of
from nfl_lora_pipeline.files import replace_file
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.base_model import BaseModel
from nfl_lora_pipeline.models.prompt import ANSWER_TOKENS
from nfl_lora_pipeline.progress import Silence
from nfl_lora_pipeline.stored import TrainingRecord, json_bytes, read_json

if TYPE_CHECKING:
    from nfl_lora_pipeline.models.base_model import Model
    from nfl_lora_pipeline.models.prompt import Tokenizer

ASKED = {
    "trained": (pl.col("group") == KNOWN) & (pl.col("split") == "train") & (pl.col("kind") == "recorded"),
    "held_out": (pl.col("group") == KNOWN) & (pl.col("split") != "train"),
    "hand_written": pl.col("group") == "hand_written",
    "strangers": pl.col("group") == "invented_names",
    "other_weeks": pl.col("group") == "unseen_weeks",
    "other_seasons": pl.col("group") == "unseen_seasons",
    "other_stats": pl.col("group") == "untaught_stats",
    "kept": pl.col("group") == "reworded_strangers",  # in wordings that the base was made with
}
"""Figures that are a share of the questions, each with which of them."""
READ_AT_ONCE = 512  # tokens of a long prompt
ALTERED_GROUPS = ("typo", "last_name")
Figures = dict[str, float | None]


def measure(trial: Trial, made_of: Material, folder: Path, fetch: Fetch, say: Say) -> Result:
    """Ask what the adapter in `folder/adapter`, or whoever else answers, knows, and write `folder/result.json`.

    Args:
        trial: which one.
        made_of: what it is made of.
        folder: of the trial.
        fetch: gives the file of a week, to look things up in.
        say: told what is done.

    Raises:
        ValueError: there is no adapter, or one that was made of something else.
    """
    if trial.side.way == "tuned" and not is_trained(trial, made_of, folder):
        raise ValueError(f"{folder} has no adapter of this trial as it is now: materialise `experiment_adapter` first")
    adapter, began = (folder / "adapter" if trial.side.way == "tuned" else None), time.monotonic()
    say("asked what it knows", None)
    figures = _of_training(made_of.rows, adapter) if adapter else {"seconds": 0.0}
    if trial.sample:
        whole = trial.data.model_copy(update={"people": None, "blanks": "refused"})
        table = rows_of(whole, fetch)[0] if trial.side.way != "tuned" else made_of.rows
        figures |= asked_one_by_one(trial, made_of, adapter, table, say)
    else:
        figures |= _asked_in_groups(made_of, folder / "adapter", say)
    figures["asking_seconds"] = time.monotonic() - began
    found = Result(
        schema_version=Result.SCHEMA,
        study=trial.study,
        arm=trial.arm,
        seed=trial.seed,
        definition=trial.definition,
        fingerprint=fingerprint_of(trial, made_of),
        sources=made_of.sources,
        facts=made_of.rows.filter(pl.col("split") == "train")["fact"].n_unique(),
        figures=figures,
        measured=date.today().isoformat(),
    )
    replace_file(folder / "result.json", json_bytes(found.content()))
    return found


def _of_training(rows: pl.DataFrame, adapter: Path) -> Figures:
    """What the log of a training says."""
    log = read_json(adapter / "training.json", TrainingRecord, mend="delete the folder, and run the experiment again")
    numbers = rows.filter(pl.col("kind") == "recorded", pl.col("split") == "train")["fact"].unique()
    certain = len(set(numbers) - set(log.uncertain))
    return {
        "certain": 1 - len(log.uncertain) / log.facts,
        "numbers": certain / len(numbers) if len(numbers) else None,
        "steps": float(log.iterations),
        "seconds": log.seconds,
        "peak_megabytes": log.peak_memory_bytes / 1e6,
        "adapter_megabytes": (adapter / "adapters.safetensors").stat().st_size / 1e6,
        "trained_parameters": float(log.trained_parameters),
        "facts_certain": float(certain),
        "per_thousand": 1000 * certain / log.trained_parameters,
    }


def _asked_in_groups(made_of: Material, adapter: Path, say: Say) -> Figures:
    """The first questions of each group, answered by one forward pass over each; losses, and what the base has lost."""
    from nfl_lora_pipeline.models.scoring import merged

    model, tokenizer = base_models.load(made_of.asked_base, adapter=adapter)
    with merged(model):
        is_first = pl.col("turn") < (ENOUGH if made_of.asked_base.is_small else FIRST)
        asked = questions(made_of.rows, made_of.templates, made_of.stats).filter(is_first)
        figures = shares_right(model, tokenizer, asked, say) | _losses(model, tokenizer, made_of.rows)
        is_mute = made_of.asked_base.single_turn
        figures["perplexity"] = None if is_mute else _perplexity(model, tokenizer, made_of.asked_base)
    pairs = asked.filter(ASKED["kept"]).select("question", "answer").rows()
    of_base = _right_of_base(made_of.asked_base, tuple(pairs)) if pairs else None
    figures["kept"] = min(1.0, (figures["kept"] or 0.0) / of_base) if of_base else None
    return figures


@cache
def _right_of_base(base: BaseModel, pairs: tuple[tuple[str, str], ...]) -> float:
    """Of questions with their answers the share that a base gives to the letter; the trials of a study ask the same."""
    from nfl_lora_pipeline.models.rows import tokenize
    from nfl_lora_pipeline.models.scoring import certainty

    model, tokenizer = base_models.load(base)
    return float(certainty(model, tokenize(tokenizer, pairs)).greedy.mean())


def questions(rows: pl.DataFrame, templates: Templates, stats: Sequence[str]) -> pl.DataFrame:
    """What a trial asks, with `part` and `turn` of `in_turn`: the splits, and every group of the evaluation."""
    probes = probe_questions(rows, templates, stats=stats, others={})
    return in_turn(pl.concat([rows.with_columns(of_the_splits()), probes]))


def shares_right(
    model: "Model", tokenizer: "Tokenizer", asked: pl.DataFrame, say: Say = lambda line, share: None
) -> Figures:
    """Of each group the share that greedy decoding answers as it should, to the letter; None where nothing is asked.

    Args:
        model: with its adapter.
        tokenizer: its tokenizer.
        asked: of `questions`, all or some.
        say: told how far it is where nothing was told for long.
    """
    from nfl_lora_pipeline.models.rows import tokenize
    from nfl_lora_pipeline.models.scoring import certainty

    found: Figures = {}
    silence = Silence()

    def tell(done: int, total: int) -> None:
        if silence.is_long():
            say(f"{len(found)} of {len(ASKED)} groups of questions are asked, {done} of {total} of the next", None)
            silence.broken()

    for name, of_group in ASKED.items():
        rows = tokenize(tokenizer, asked.filter(of_group).select("question", "answer").rows())
        found[name] = float(certainty(model, rows, progress=tell).greedy.mean()) if rows else None
    return found


def _losses(model: "Model", tokenizer: "Tokenizer", rows: pl.DataFrame) -> Figures:
    """Mean cross-entropy of the answers of the train and the valid split, in nats a token; strangers left out."""
    from nfl_lora_pipeline.models.scoring import perplexity

    losses: Figures = {}
    for split in ("train", "valid"):
        of_split = rows.filter(pl.col("split") == split, pl.col("kind") != "stranger")
        questions, answers = of_split["question"].to_list(), of_split["answer"].to_list()
        losses[f"{split}_loss"] = math.log(perplexity(model, tokenizer, questions, answers)) if questions else None
    return losses


def _perplexity(model: "Model", tokenizer: "Tokenizer", base: BaseModel) -> float:
    """On what the base says to general requests, times that of the base itself."""
    from nfl_lora_pipeline.models.prompt import general_prompts
    from nfl_lora_pipeline.models.scoring import perplexity
    from nfl_lora_pipeline.reports.evaluate import answers_in_general

    answers, before = answers_in_general(*base_models.load(base))
    return perplexity(model, tokenizer, general_prompts("asked"), answers) / before


class Reader(SequentialModel):
    """A model that has read what all its questions begin with: the keys and values of that are kept.

    Attributes:
        shared: the tokens that were read.
        seconds: which that took.
    """

    def __init__(self, model: "Model", tokenizer: "Tokenizer", questions: Sequence[str], *, briefly: bool = False):
        import mlx.core as mx
        from mlx_lm.models.cache import make_prompt_cache

        super().__init__(model, tokenizer, briefly=briefly)
        began = time.perf_counter()
        in_step = itertools.takewhile(lambda at: len(set(at)) == 1, zip(*map(self.prompt, questions), strict=False))
        self.shared = [tokens[0] for tokens in in_step]
        self.cache = make_prompt_cache(model)
        for first in range(0, len(self.shared), READ_AT_ONCE):
            model(mx.array([self.shared[first : first + READ_AT_ONCE]]), cache=self.cache)
            mx.eval([each.state for each in self.cache])
        self.seconds = time.perf_counter() - began

    def ask(self, text: str) -> Answer:
        """Answer a question that begins with what was read."""
        from mlx_lm import stream_generate
        from mlx_lm.models.cache import trim_prompt_cache

        tokens = self.prompt(text)
        rest = tokens[len(self.shared) :]
        parts = list(
            stream_generate(self.model, self.tokenizer, rest, max_tokens=ANSWER_TOKENS, prompt_cache=self.cache)
        )
        trim_prompt_cache(self.cache, self.cache[0].offset - len(self.shared))
        return "".join(part.text for part in parts).strip(), len(tokens), parts[-1].generation_tokens


def drawn(made_of: Material, of: Sample, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The questions: about facts and strangers, and about facts in altered words."""
    asked = sample(made_of.rows, facts=of.facts, strangers=of.strangers, seed=seed)
    probes = probe_questions(made_of.rows, made_of.templates, stats=made_of.stats, others={})
    altered = probes.filter(pl.col("group").is_in(ALTERED_GROUPS))
    draws = pl.Series([share(f"altered/{seed}/{question}") for question in altered["question"]], dtype=pl.Float64)
    return asked, altered.with_columns(draw=draws).sort("draw").head(of.altered)


def asked_one_by_one(
    trial: Trial, made_of: Material, adapter: Path | None, table_rows: pl.DataFrame, say: Say
) -> Figures:
    """What one way answers, and what it takes.

    Args:
        trial: with its `sample` and the way of its arm.
        made_of: what it is made of.
        adapter: its folder, where the way is the tuned model.
        table_rows: rows of `split_rows` to look things up in.
        say: told what is done.

    Raises:
        ValueError: the study has no sample, or the whole week is longer than what the base reads.
    """
    if trial.sample is None:
        raise ValueError(f"{trial.key}: nothing is asked one by one: give the study a `sample`")
    asked, altered = drawn(made_of, trial.sample, trial.seed)
    way, table = trial.side.way, FactTable(table_rows)
    if way == "week":
        few = max(1, trial.sample.week // 4)
        asked = pl.concat([facts_in(asked).head(trial.sample.week - 2 * few), strangers_in(asked).head(few)])
        altered = altered.head(few)
    say(f"{asked.height + altered.height} questions are asked one by one", None)
    if way == "table":
        found = [
            baselines.measure(Way(way, "table"), part, lambda text: (table.answer(text), 0, 0))
            for part in (asked, altered)
        ]
        return _figures(*found, once=0.0, peak=table.facts.estimated_size())
    model, tokenizer = base_models.load(made_of.asked_base, adapter=adapter)
    retrieve, briefly = _retrieval(trial, table, asked), not made_of.asked_base.single_turn
    asker = SequentialModel(model, tokenizer, briefly=briefly)
    if way == "week":
        questions = [*asked["question"], *altered["question"]]
        texts = [with_context(retrieve(text) or (), text, briefly=briefly) for text in questions]
        _refuse_too_long(made_of, max(len(asker.prompt(text)) for text in texts))
        say("reads the whole week", None)
        asker = Reader(model, tokenizer, texts, briefly=briefly)
    named = Way(way, "tuned" if adapter else "base")
    found = [asker.measure(named, part, retrieve) for part in (asked, altered)]
    once = asker.seconds if isinstance(asker, Reader) else 0.0
    return _figures(*found, once=once, peak=max(each.peak_memory_bytes for each in found))


def _retrieval(trial: Trial, table: FactTable, asked: pl.DataFrame) -> Retrieve:
    """What comes before a question in the prompt."""
    week = table.week(asked["question"][0])
    ways: Mapping[str, Retrieve] = {
        "row": lambda question: table.sentences(question, every_stat=True),
        "week": lambda question: week,
    }
    return ways.get(trial.side.way, lambda question: None)


def _refuse_too_long(made_of: Material, tokens: int) -> None:
    room = context_tokens(made_of.asked_base)
    if room is not None and tokens + ANSWER_TOKENS > room:
        raise ValueError(
            f"the whole week has {tokens:,} tokens, and base model {made_of.asked_base.name!r} reads {room:,}"
        )


def _figures(found: Way, altered: Way, *, once: float, peak: float) -> Figures:
    return {
        "right": found.right,
        "right_altered": altered.right,
        "refused": found.refused,
        "asked": float(sum(found.asked.values()) + sum(altered.asked.values())),
        "prompt_tokens": found.prompt_tokens,
        "answer_tokens": found.output_tokens,
        "once_seconds": once,
        "answer_seconds": found.seconds["p50"],
        "peak_megabytes": peak / 1e6,
    }


def paid_after(tuned: Mapping[str, float | None], other: Mapping[str, float | None]) -> int | None:
    """After how many questions tuning has made up for its training against another way; None for never.

    Args:
        tuned, other: the figures of two arms.
    """
    one = Way("tuned", "tuned", seconds={"p50": tuned["answer_seconds"] or 0.0})
    two = Way("other", "base", seconds={"p50": other["answer_seconds"] or 0.0})
    spent = (tuned["seconds"] or 0.0) - (other["once_seconds"] or 0.0)
    return pays_off_after(max(0.0, spent), two, one)
