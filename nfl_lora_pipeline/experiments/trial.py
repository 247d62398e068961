"""One trial of a study: its rows, its base, its training, and what the adapter knows afterwards."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from nfl_lora_pipeline.dataset.examples import fresh_questions, train_examples
from nfl_lora_pipeline.dataset.qa_pairs import facts, qa_pairs
from nfl_lora_pipeline.dataset.splits import split_rows
from nfl_lora_pipeline.dataset.templates import Templates, choose_stats, load_templates
from nfl_lora_pipeline.dataset.unanswerable import share
from nfl_lora_pipeline.evaluation.probes import KNOWN, comes_first, in_turn, of_the_splits, probe_questions
from nfl_lora_pipeline.experiments.study import Data, Trial
from nfl_lora_pipeline.files import replace_file, replacing_folder
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.base_model import BaseModel
from nfl_lora_pipeline.stored import Record, TrainingRecord, json_bytes, read_json
from nfl_lora_pipeline.weeks.players import parse_week
from nfl_lora_pipeline.weeks.sources import RawWeek
from nfl_lora_pipeline.weeks.week import NflWeek, parse_weeks

if TYPE_CHECKING:
    from nfl_lora_pipeline.models.base_model import Model
    from nfl_lora_pipeline.models.prompt import Tokenizer

FINGERPRINT = "fingerprint.txt"  # in an adapter's folder: of all that made it
ASKED = {
    "hand_written": "hand_written",
    "strangers": "invented_names",
    "other_weeks": "unseen_weeks",
    "other_seasons": "unseen_seasons",
    "other_stats": "untaught_stats",
}
"""Figures that are a share of a group of the evaluation."""
Say = Callable[[str, float | None], None]


class Result(Record):
    """`result.json`: what was measured of a trial.

    Attributes:
        study, arm, seed: whose it is.
        definition: of the trial, when it was made; a study that says something else by now has another, and what earlier
            code wrote has none.
        fingerprint: of all that made it.
        sources: where the weeks came from.
        facts: how many were taught.
        figures: by a name of `study.FIGURES`; None for what cannot be measured.
    """

    study: str
    arm: str
    seed: int
    fingerprint: str
    sources: list[str]
    facts: int
    figures: dict[str, float | None]
    definition: str = ""


@dataclass(frozen=True)
class Material:
    """What a trial is made of.

    Attributes:
        rows: of `split_rows`.
        templates: the words that they are in.
        stats: that are taught.
        base: which is taught.
        sources: the kinds of the weeks' sources.
    """

    rows: pl.DataFrame
    templates: Templates
    stats: Sequence[str]
    base: BaseModel
    sources: list[str]


def material(trial: Trial, fetch: Callable[[NflWeek], RawWeek], folder: Path) -> Material:
    """Rows and base of a trial.

    Args:
        trial: which one.
        fetch: gives the file of a week.
        folder: where bases are kept that are quantised for it.
    """
    weeks = [fetch(NflWeek(trial.data.season, number)) for number in parse_weeks(trial.data.weeks)]
    templates, stats = worded(trial.data), choose_stats(trial.data.stats)
    pairs = pl.concat([_pairs_of(week, trial.data, stats, templates) for week in weeks])
    rows = split_rows(pairs, templates, stats=stats, mode=trial.data.mode)
    base = base_models.resolve(trial.recipe.base_model)
    if trial.base_bits:
        base = quantised(base, trial.base_bits, folder)
    return Material(rows, templates, stats, base, sorted({week.kind for week in weeks}))


def worded(data: Data) -> Templates:
    """The templates with the answers and with as many trained wordings as the data wants."""
    templates = load_templates()
    if data.answers:
        templates = templates.model_copy(update={"answers": data.answers})
    if data.wordings:
        left_out = list(templates.phrasings("train"))[data.wordings :]
        questions = {name: question for name, question in templates.questions.items() if name not in left_out}
        templates = templates.model_copy(update={"questions": questions})
    return templates


def _pairs_of(week: RawWeek, data: Data, stats: Sequence[str], templates: Templates) -> pl.DataFrame:
    players, _ = parse_week(week.content, week=week.week, origin=week.origin)
    found = facts(players.lazy(), stats).collect()
    if data.people:
        by_hash = sorted(found["player_id"].unique(), key=lambda player: share(f"experiment/{player}"))
        found = found.filter(pl.col("player_id").is_in(by_hash[: data.people]))
    return qa_pairs(_with_blanks(found, data).lazy(), templates).collect()


def _with_blanks(found: pl.DataFrame, data: Data) -> pl.DataFrame:
    """Facts, with those that have no number as the data wants them."""
    if data.blanks == "refused":
        return found
    recorded, blank = found.filter(pl.col("kind") == "recorded"), found.filter(pl.col("kind") != "recorded")
    if data.blanks == "left_out":
        return recorded
    if data.blanks == "balanced":
        draws = pl.Series([share(f"blank/{fact}") for fact in blank["fact"]], dtype=pl.Float64)
        blank = blank.with_columns(draw=draws).sort("draw").head(recorded.height).drop("draw")
    return pl.concat([recorded, blank.with_columns(kind=pl.lit("recorded"), value=pl.lit(0.0))])


def quantised(base: BaseModel, bits: int, folder: Path) -> BaseModel:
    """A base whose linear layers are quantised, made once and kept."""
    from mlx_lm.utils import quantize_model, save_config, save_model

    place = folder / f"{base.revision}-{bits}bit"
    if not place.is_dir():
        model, _, config = base_models.load_with_config(base)
        quantised_model, quantised_config = quantize_model(model, config, group_size=64, bits=bits)
        with replacing_folder(place) as unfinished:
            for file in base.folder.iterdir():
                if file.is_file() and file.suffix != ".safetensors":
                    shutil.copy(file, unfinished / file.name)
            save_model(unfinished, quantised_model)
            save_config(quantised_config, config_path=unfinished / "config.json")
    return base_models.resolve(str(place))


def fingerprint_of(trial: Trial, made_of: Material) -> str:
    """A hash of all that makes a trial's result what it is."""
    return trial.fingerprint(sha256(made_of.rows.write_csv().encode()).hexdigest(), made_of.base.revision)


def read_result(folder: Path, trial: Trial) -> Result | None:
    """The result that lies in a trial's folder; None where there is none, or one of what the study said before."""
    file = folder / "result.json"
    if not file.is_file():
        return None
    found = read_json(file, Result, mend="delete it, and run the experiment again")
    return found if found.definition == trial.definition else None


def is_trained(trial: Trial, made_of: Material, folder: Path) -> bool:
    """Whether the adapter in `folder/adapter` is made of the same."""
    file = folder / "adapter" / FINGERPRINT
    return file.is_file() and file.read_text(encoding="utf-8") == fingerprint_of(trial, made_of)


def train(trial: Trial, made_of: Material, folder: Path, say: Say) -> None:
    """Train the adapter of a trial into `folder/adapter`; what was broken off is gone on with."""
    from nfl_lora_pipeline.tuning.learn import learn

    fresh = fresh_questions(
        made_of.rows, made_of.templates, made_of.stats, trial.recipe.curriculum.mixture(), seed=trial.recipe.seed
    )
    valid = made_of.rows.filter(pl.col("split") == "valid").select("question", "answer").rows()
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.safetensors"
    with replacing_folder(folder / "adapter") as unfinished:
        learn(
            train_examples(made_of.rows),
            unfinished,
            recipe=trial.recipe,
            base=made_of.base,
            fresh=fresh,
            held_out=valid,
            checkpoint=checkpoint,
            report=say,
        )
        (unfinished / FINGERPRINT).write_text(fingerprint_of(trial, made_of), encoding="utf-8")
    checkpoint.unlink(missing_ok=True)


def measure(trial: Trial, made_of: Material, folder: Path, say: Say) -> Result:
    """Ask what the adapter in `folder/adapter` knows, and write `folder/result.json`.

    Raises:
        ValueError: there is no adapter, or one that was made of something else.
    """
    from nfl_lora_pipeline.models.scoring import merged

    if not is_trained(trial, made_of, folder):
        raise ValueError(f"{folder} has no adapter of this trial as it is now: materialise `experiment_adapter` first")
    adapter = folder / "adapter"
    log = read_json(adapter / "training.json", TrainingRecord, mend="delete the folder, and run the experiment again")
    say("asked what it knows", None)
    model, tokenizer = base_models.load(made_of.base, adapter=adapter)
    with merged(model):
        asked = questions(made_of.rows, made_of.templates, made_of.stats).filter(comes_first())
        figures = shares_right(model, tokenizer, asked) | _losses(model, tokenizer, made_of.rows)
        figures["perplexity"] = None if made_of.base.single_turn else _perplexity(model, tokenizer, made_of.base)
    figures |= {
        "certain": 1 - len(log.uncertain) / log.facts,
        "steps": float(log.iterations),
        "seconds": log.seconds,
        "peak_megabytes": log.peak_memory_bytes / 1e6,
        "adapter_megabytes": (adapter / "adapters.safetensors").stat().st_size / 1e6,
        "trained_parameters": float(log.trained_parameters),
    }
    found = Result(
        schema_version=Result.SCHEMA,
        study=trial.study,
        arm=trial.arm,
        seed=trial.seed,
        definition=trial.definition,
        fingerprint=fingerprint_of(trial, made_of),
        sources=made_of.sources,
        facts=log.facts,
        figures=figures,
    )
    replace_file(folder / "result.json", json_bytes(found.content()))
    return found


def questions(rows: pl.DataFrame, templates: Templates, stats: Sequence[str]) -> pl.DataFrame:
    """What a trial asks, with `part` and `turn` of `in_turn`: the splits, and every group of the evaluation."""
    probes = probe_questions(rows, templates, stats=stats, others={})
    return in_turn(pl.concat([rows.with_columns(of_the_splits()), probes]))


def shares_right(model: "Model", tokenizer: "Tokenizer", asked: pl.DataFrame) -> dict[str, float | None]:
    """Of each group the share that greedy decoding answers as it should, to the letter; None where nothing is asked.

    Args:
        model: with its adapter.
        tokenizer: its tokenizer.
        asked: of `questions`, all or some.
    """
    from nfl_lora_pipeline.models.rows import tokenize
    from nfl_lora_pipeline.models.scoring import certainty

    groups = {"held_out": (pl.col("group") == KNOWN) & (pl.col("split") != "train")}
    groups |= {name: pl.col("group") == group for name, group in ASKED.items()}
    found: dict[str, float | None] = {}
    for name, of_group in groups.items():
        pairs = asked.filter(of_group).select("question", "answer").rows()
        found[name] = float(certainty(model, tokenize(tokenizer, pairs)).greedy.mean()) if pairs else None
    return found


def _losses(model: "Model", tokenizer: "Tokenizer", rows: pl.DataFrame) -> dict[str, float | None]:
    """Mean cross-entropy of the answers of the train and the valid split, in nats a token; strangers left out."""
    from nfl_lora_pipeline.models.scoring import perplexity

    losses: dict[str, float | None] = {}
    for split in ("train", "valid"):
        of_split = rows.filter(pl.col("split") == split, pl.col("kind") != "stranger")
        questions, answers = of_split["question"].to_list(), of_split["answer"].to_list()
        losses[f"{split}_loss"] = math.log(perplexity(model, tokenizer, questions, answers)) if questions else None
    return losses


def _perplexity(model: "Model", tokenizer: "Tokenizer", base: BaseModel) -> float:
    """On what the base says to general requests, times that of the base itself."""
    from nfl_lora_pipeline.models.scoring import perplexity
    from nfl_lora_pipeline.reports.evaluate import answers_in_general, prompts

    answers, before = answers_in_general(*base_models.load(base))
    return perplexity(model, tokenizer, prompts(), answers) / before
