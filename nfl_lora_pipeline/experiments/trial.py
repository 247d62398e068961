"""One trial of a study: its rows, its base, which may be made of another one, and its training."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from nfl_lora_pipeline.dataset.examples import Example, examples_of, fresh_questions
from nfl_lora_pipeline.dataset.people import share
from nfl_lora_pipeline.dataset.qa_pairs import facts, qa_pairs
from nfl_lora_pipeline.dataset.splits import split_rows
from nfl_lora_pipeline.dataset.templates import Templates, choose_stats, load_templates
from nfl_lora_pipeline.dataset.unanswerable import Drawn
from nfl_lora_pipeline.experiments.study import Arm, Data, Trial
from nfl_lora_pipeline.files import replace_file, replacing_folder
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.base_model import BaseModel
from nfl_lora_pipeline.recipes.recipe import Recipe
from nfl_lora_pipeline.stored import Record, read_json
from nfl_lora_pipeline.weeks.players import parse_week
from nfl_lora_pipeline.weeks.sources import RawWeek
from nfl_lora_pipeline.weeks.week import NflWeek, parse_weeks

if TYPE_CHECKING:
    import mlx.core as mx

    from nfl_lora_pipeline.models.gguf_file import Config

FINGERPRINT = "fingerprint.txt"  # in an adapter's folder: of all that made it
Say = Callable[[str, float | None], None]
Fetch = Callable[[NflWeek], RawWeek]
CONFIG, TOKENIZER, TOKENIZER_CONFIG, TEMPLATE = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
MISTRALS_TOKENS = {"<|endoftext|>": "<s>", "<|user|>": "[INST]", "<|assistant|>": "[/INST]", "<|end|>": "</s>"}
"""The tokens around a turn, each with what Mistral calls it."""
MISTRALS_TEMPLATE = (
    "<s>{% set chat = namespace(first='') %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% set chat.first = message['content'] + ' ' %}"
    "{% elif message['role'] == 'user' %}[INST]{{ chat.first + message['content'] }}[/INST]{% set chat.first = '' %}"
    "{% else %}{{ message['content'] }}</s>{% endif %}{% endfor %}"
)
"""Mistral has no system role: such a turn's words go before those of the user's next one, as in its template since v0.3."""
TEXT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n' }}{% endif %}"
)
"""No template: a question, the end of a line, and its answer."""


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
        measured: the day, as 2026-11-29; what earlier code wrote has none.
    """

    study: str
    arm: str
    seed: int
    fingerprint: str
    sources: list[str]
    facts: int
    figures: dict[str, float | None]
    definition: str = ""
    measured: str = ""

    @property
    def spent(self) -> float:
        """The seconds of training and asking that it took."""
        return sum(self.figures.get(name) or 0.0 for name in ("seconds", "asking_seconds"))


@dataclass(frozen=True)
class Material:
    """What a trial is made of.

    Attributes:
        rows: of `split_rows`.
        templates: the words that they are in.
        stats: that are taught.
        base: which is taught.
        asked_base: which is asked, of the same weights.
        sources: the kinds of the weeks' sources.
    """

    rows: pl.DataFrame
    templates: Templates
    stats: Sequence[str]
    base: BaseModel
    asked_base: BaseModel
    sources: list[str]

    def examples(self, recipe: Recipe) -> list[Example]:
        """What is trained on by a recipe."""
        return examples_of(self.rows, self.templates, last_names=recipe.curriculum.last_names)

    def fresh(self, recipe: Recipe) -> Iterator[Drawn]:
        """What is drawn afresh for its steps."""
        mixture = recipe.curriculum.mixture(talks=not self.asked_base.single_turn)
        return fresh_questions(self.rows, self.templates, self.stats, mixture, seed=recipe.seed)


def material(trial: Trial, fetch: Fetch, folder: Path) -> Material:
    """Rows and base of a trial.

    Args:
        trial: which one.
        fetch: gives the file of a week.
        folder: where bases are kept that are made for it.
    """
    name, side = trial.recipe.base_model, trial.side
    base, asked_base = base_for_training(side, name, folder), base_for_asking(side, name, folder)
    rows, sources = rows_of(trial.data, fetch)
    return Material(rows, worded(trial.data), choose_stats(trial.data.stats), base, asked_base, sources)


def rows_of(data: Data, fetch: Fetch) -> tuple[pl.DataFrame, list[str]]:
    """The rows of `split_rows` of what is taught, and the kinds of the weeks' sources."""
    weeks = [fetch(NflWeek(data.season, number)) for number in parse_weeks(data.weeks)]
    templates, stats = worded(data), choose_stats(data.stats)
    pairs = pl.concat([_pairs_of(week, data, stats, templates) for week in weeks])
    return split_rows(pairs, templates, stats=stats, mode=data.mode), sorted({week.kind for week in weeks})


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


def base_for_training(side: Arm, name: str, folder: Path) -> BaseModel:
    """The base that an arm trains, made where there is none in `folder`."""
    base = base_models.resolve(name)
    if side.shape:
        base = in_mistrals_shape(base, folder)
    if side.base_bits:
        base = quantised(base, side.base_bits, folder)
    return with_template(base, lambda template: TEXT_TEMPLATE, folder) if side.rows_as == "text" else base


def base_for_asking(side: Arm, name: str, folder: Path) -> BaseModel:
    """The same weights, asked as a chat, after the system turn of the arm where it has one."""
    base = base_for_training(side.model_copy(update={"rows_as": "chat"}), name, folder)
    if not side.system:
        return base
    turn = json.dumps({"role": "system", "content": side.system})
    return with_template(base, lambda template: f"{{% set messages = [{turn}] + messages %}}{template}", folder)


def quantised(base: BaseModel, bits: int, folder: Path) -> BaseModel:
    """A base whose linear layers are quantised."""
    from mlx_lm.utils import quantize_model, save_config, save_model

    place = folder / f"{base.revision}-{bits}bit"
    if not place.is_dir():
        model, _, config = base_models.load_with_config(base)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how many bits a weight has
            quantised_model, quantised_config = quantize_model(model, config, group_size=64, bits=bits)
        with replacing_folder(place) as unfinished:
            _copy_all_but_weights(base, unfinished)
            save_model(unfinished, quantised_model)
            save_config(quantised_config, config_path=unfinished / CONFIG)
    return base_models.resolve(str(place))


def in_mistrals_shape(base: BaseModel, folder: Path) -> BaseModel:
    """A base of Phi-3's architecture as one of Mistral's, with the same logits for the same tokens.

    What Phi-3 projects at once, Mistral projects apart. The tokens around turns keep their weights and get Mistral's names.

    Raises:
        ValueError: the base is of another architecture, or rotates positions otherwise than Mistral.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten

    config = _read(base.folder / CONFIG)
    if config["model_type"] != "phi3" or config.get("rope_scaling"):
        raise ValueError(
            f"shape mistral: base model {base.name!r} is not of Phi-3's architecture without scaled positions"
        )
    place = folder / f"{base.revision}-mistral-{_short(MISTRALS_TEMPLATE)}"
    if not place.is_dir():
        model, _ = base_models.load(base)
        with replacing_folder(place) as unfinished:
            _copy_all_but_weights(base, unfinished)
            _name_turns_as_mistral(unfinished)
            weights = _projected_apart(dict(tree_flatten(model.parameters())), config)
            mx.save_safetensors(str(unfinished / "model.safetensors"), weights, metadata={"format": "mlx"})
            config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": None}
            _write(unfinished / CONFIG, config)
    return base_models.resolve(str(place))


def _projected_apart(weights: "dict[str, mx.array]", config: "Config") -> "dict[str, mx.array]":
    """Weights with `q_proj`, `k_proj`, `v_proj` for `qkv_proj`, and `gate_proj`, `up_proj` for `gate_up_proj`."""
    import mlx.core as mx

    queries = config["hidden_size"]
    keys = queries * config["num_key_value_heads"] // config["num_attention_heads"]
    parts = {
        "qkv_proj": (["q_proj", "k_proj", "v_proj"], [queries, queries + keys]),
        "gate_up_proj": (["gate_proj", "up_proj"], [config["intermediate_size"]]),
    }
    found: dict[str, mx.array] = {}
    for name, array in weights.items():
        before, _, module = name.removesuffix(".weight").rpartition(".")
        names, ends = parts.get(module, ([module], []))
        arrays = mx.split(array, ends) if ends else [array]
        found |= {f"{before}.{each}.weight": mx.contiguous(part) for each, part in zip(names, arrays, strict=True)}
    return found


def _name_turns_as_mistral(folder: Path) -> None:
    tokenizer = _read(folder / TOKENIZER)
    for token in tokenizer["added_tokens"]:
        token["content"] = MISTRALS_TOKENS.get(token["content"], token["content"])
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {MISTRALS_TOKENS.get(token, token): number for token, number in vocabulary.items()}
    _write(folder / TOKENIZER, tokenizer)
    config = _read(folder / TOKENIZER_CONFIG)
    config |= {"chat_template": MISTRALS_TEMPLATE, "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<s>"}
    _write(folder / TOKENIZER_CONFIG, config)


def with_template(base: BaseModel, change: Callable[[str], str], folder: Path) -> BaseModel:
    """The same weights, where they are, with another chat template, of which `change` is told the base's own."""
    config = _read(base.folder / TOKENIZER_CONFIG)
    file = base.folder / TEMPLATE
    template = change(file.read_text(encoding="utf-8") if file.is_file() else str(config["chat_template"]))
    place = folder / f"{base.revision}-{_short(template)}"
    if not place.is_dir():
        with replacing_folder(place) as unfinished:
            _copy_all_but_weights(base, unfinished)
            (unfinished / TEMPLATE).unlink(missing_ok=True)
            _write(unfinished / TOKENIZER_CONFIG, config | {"chat_template": template})
            for weights in base.folder.glob("*.safetensors"):
                (unfinished / weights.name).symlink_to(weights.resolve())
    return base_models.resolve(str(place))


def _copy_all_but_weights(base: BaseModel, folder: Path) -> None:
    for file in base.folder.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            shutil.copy(file, folder / file.name)


def _short(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]


def _read(file: Path) -> "Config":
    content: Config = json.loads(file.read_text(encoding="utf-8"))
    return content


def _write(file: Path, content: "Config") -> None:
    replace_file(file, json.dumps(content, indent=1, ensure_ascii=False).encode())


def fingerprint_of(trial: Trial, made_of: Material) -> str:
    """A hash of all that makes a trial's result what it is."""
    rows = sha256(made_of.rows.write_csv().encode()).hexdigest()
    return trial.fingerprint(rows, made_of.base.revision, made_of.asked_base.revision)


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

    valid = made_of.rows.filter(pl.col("split") == "valid").select("question", "answer").rows()
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.safetensors"
    with replacing_folder(folder / "adapter") as unfinished:
        learn(
            made_of.examples(trial.recipe),
            unfinished,
            recipe=trial.recipe,
            base=made_of.base,
            fresh=made_of.fresh(trial.recipe),
            held_out=valid,
            checkpoint=checkpoint,
            report=say,
        )
        (unfinished / FINGERPRINT).write_text(fingerprint_of(trial, made_of), encoding="utf-8")
    checkpoint.unlink(missing_ok=True)
