"""Teaching a base model any examples, without Dagster and without football: what the adapter's asset, the benchmarks and
`nfl-lora learn` call, and what `from nfl_lora_pipeline import learn` gives.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nfl_lora_pipeline.dataset.examples import Example
from nfl_lora_pipeline.dataset.unanswerable import Drawn
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.recipes.recipe import Recipe, load_recipe
from nfl_lora_pipeline.tuning.adaptation import begin, token_rows
from nfl_lora_pipeline.tuning.learner import Ring
from nfl_lora_pipeline.tuning.memory import machine_memory, memory_needed, refuse_too_little, tokens_at_most
from nfl_lora_pipeline.tuning.mlx_lm_trainer import steps_of, train_plainly
from nfl_lora_pipeline.tuning.recall_trainer import Training, train_adapter
from nfl_lora_pipeline.tuning.records import TrainingLog, certified_of
from nfl_lora_pipeline.tuning.sampler import Rehearsed

if TYPE_CHECKING:
    from mlx import nn

    from nfl_lora_pipeline.models.prompt import Tokenizer

Pair = tuple[str, str]  # a question and its answer
FIRST_DRAWN = 20  # of the fresh questions, by which a checkpoint knows its own


class Taught(NamedTuple):
    """A model with its adapter, and what became of the training.

    Attributes:
        model, tokenizer: as of `mlx_lm.load`, with the adapter.
        log: the content of `training.json`; `log.uncertain` names what is not certain.
    """

    model: "nn.Module"
    tokenizer: "Tokenizer"
    log: TrainingLog

    def answer(self, questions: Sequence[str]) -> list[str]:
        """What the model says, greedily, to each question alone."""
        return base_models.answer(self.model, self.tokenizer, list(questions))


def learn(
    examples: Iterable[Pair | Example],
    folder: Path | str,
    *,
    recipe: Recipe | str = "embedded",
    base: base_models.BaseModel | None = None,
    fresh: Iterator[Pair | Drawn] | None = None,
    held_out: Sequence[Pair] = (),
    start: Path | None = None,
    checkpoint: Path | None = None,
    report: Callable[[str, float], None] = lambda line, share: None,
) -> Taught:
    """Teach a base model examples until it is certain of every answer, or to the recipe's budget.

    Args:
        examples: pairs of question and answer, each a fact of its own, or an `Example`, which says which rows are one fact.
        folder: a folder, made where there is none, which gets `adapters.safetensors`, `adapter_config.json` (together what
            `mlx_lm.load(adapter_path=...)` takes), `training.json` and `certificate.json`.
        recipe: how to train: a recipe, the name of a shipped one or the path of a YAML file.
        base: the base model; None for the recipe's.
        fresh: questions with what is to be said, drawn afresh for each step, without end, the same at every call: those that
            have no answer, and facts asked about in other words; a `Drawn` says how much each weighs. None where there are
            none: the model then answers whatever it is asked.
        held_out: pairs whose loss is reported by the method `mlx_lm`.
        start: the folder of an adapter to go on from, made with the same recipe on the same base; None to begin anew.
        checkpoint: a file, `*.safetensors`, from which the next call with the same arguments goes on where this one was broken
            off; see `recall_trainer.train_adapter`. Not with the method `mlx_lm`.
        report: told a line for a log and how far it is (0 to 1).

    Raises:
        ValueError: there is nothing to learn, the recipe does not fit the base or the base the examples, or there is too little
            memory; the base model cannot be found or read (`BaseModelError`).
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    drawn: Iterator[Drawn] = (Drawn(*each) for each in fresh or ())
    rows = [each if isinstance(each, Example) else Example(*each, fact=each[0], teaches=True) for each in examples]
    if not rows:
        raise ValueError("there are no examples to learn")
    if fresh is None:
        recipe = recipe.changed(refusal_share=0.0, varied_share=0.0)
    base = base or base_models.resolve(recipe.base_model, report=lambda line: report(line, 0.0))
    train = _trainer(base, recipe, drawn, held_out, checkpoint)
    report(_check_memory(base, recipe, rows), 0.0)
    model, tokenizer = base_models.load(base)
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Taught(model, tokenizer, train(model, tokenizer, rows, recipe, Path(folder), start=start, report=report))


def _trainer(
    base: base_models.BaseModel,
    recipe: Recipe,
    drawn: Iterator[Drawn],
    held_out: Sequence[Pair],
    checkpoint: Path | None,
) -> Callable[..., TrainingLog]:
    """What trains by a recipe's method.

    Raises:
        ValueError: it cannot share a training with other processes.
    """
    if recipe.method != "mlx_lm":
        first = list(itertools.islice(drawn, FIRST_DRAWN))
        of = (base.revision, *map(repr, first))
        return partial(train_adapter, fresh=itertools.chain(first, drawn), checkpoint=checkpoint, belongs_to=of)
    if Ring.here.size > 1:
        raise ValueError("method: mlx_lm trains in one process alone; leave mlx.launch out, or take the method recall")
    return partial(train_plainly, held_out=held_out)


class Forecast(NamedTuple):
    """What a training takes.

    Attributes:
        rows, tokens: of what is to be learnt.
        memory: needed, in words.
        steps: to be expected; `most_steps` at most.
        step_seconds: of a trial step; None where the method has none.
    """

    rows: int
    tokens: int
    memory: str
    steps: int
    most_steps: int
    step_seconds: float | None


def forecast(
    examples: Sequence[Example],
    *,
    recipe: Recipe,
    base: base_models.BaseModel,
    fresh: Iterator[Drawn],
    start: Path | None = None,
) -> Forecast:
    """Look what `learn` with the same arguments will take: load the base, and make two steps that are thrown away.

    Raises:
        ValueError: as of `learn`.
    """
    memory = _check_memory(base, recipe, examples)
    model, tokenizer = base_models.load(base)
    if recipe.method == "mlx_lm":
        rows, steps = token_rows(model, tokenizer, examples), steps_of(recipe, len(examples))
        return Forecast(len(rows), sum(len(row.tokens) for row in rows), memory, steps, steps, None)
    _, log = begin(model, examples, recipe, start)
    rehearsed = Rehearsed.stand_in(tokenizer)
    training = Training(model, tokenizer, examples, recipe, fresh, log, rehearsed=rehearsed)
    if start is not None:
        certified = certified_of(examples, start)
        training.to_learn = sum(example.teaches and example.fact not in certified for example in examples)
    steps, most = training.steps_expected()
    tokens = sum(len(row.tokens) for row in training.rows)
    return Forecast(len(examples), tokens, memory, steps, most, training.trial())


def _check_memory(base: base_models.BaseModel, recipe: Recipe, examples: Sequence[Example]) -> str:
    """Refuse what cannot fit before anything is loaded; how much is needed, in a line."""
    answer = max(len(example.answer) for example in examples)
    longest = answer + max(len(example.question) for example in examples)
    need = memory_needed(base, recipe, row_tokens=tokens_at_most(longest), answer_tokens=tokens_at_most(answer))
    held = machine_memory()
    refuse_too_little(need, base, recipe, machine_bytes=held)
    return f"about {need.total / 1e9:.1f} GB of memory needed, of {held / 1e9:.1f} GB"
