"""The commands of `nfl-lora` that know nothing of a season: one's own facts, from a CSV file to an adapter, and recipes."""

import itertools
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nfl_lora_pipeline.cli.adapters import recipes
from nfl_lora_pipeline.cli.terminal import among_others
from nfl_lora_pipeline.files import lasting_base
from nfl_lora_pipeline.interrupts import Interrupted

if TYPE_CHECKING:
    from nfl_lora_pipeline.dataset.examples import OwnExamples
    from nfl_lora_pipeline.recipes.recipe import Recipe
    from nfl_lora_pipeline.tuning.learn import Taught

STRANGERS = 200  # unknown subjects that are asked about in the end
SHOWN = 3  # facts whose answers are shown
NOT_CERTAIN = 3  # exit code

commands = click.Group()  # `main` takes them all


@commands.command()
@click.argument("facts", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--templates",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="YAML with questions, answer and refusal: the words for subject, attribute and value.",
)
@click.option(
    "--recipe",
    default="embedded",
    show_default=True,
    help="A shipped recipe or the path of a YAML file.",
    shell_complete=recipes,
)
@click.option(
    "--base-model", default="", help="embedded, a folder, a GGUF file or a Hugging Face id.  [default: the recipe's]"
)
@among_others
def learn(facts: Path, folder: Path, templates: Path | None, recipe: str, base_model: str) -> None:
    """Teach a base model one's own FACTS, and write the adapter to FOLDER.

    FACTS is a CSV file with the columns question and answer; or subject, attribute and value, with --templates. Ctrl-C keeps
    what was learnt, and the same command goes on. Exit code 3: some facts are not certain.
    """
    from nfl_lora_pipeline.dataset.examples import read_examples
    from nfl_lora_pipeline.models.base_model import resolve
    from nfl_lora_pipeline.recipes.recipe import AUTO, load_recipe, recipe_for_this_machine

    own = read_examples(facts, templates)
    chosen = load_recipe(recipe if recipe != AUTO else recipe_for_this_machine()[0])
    if base_model:
        chosen = chosen.changed(base_model=lasting_base(base_model))
    if folder.exists():
        raise click.UsageError(f"{folder} is there already; name a new folder, or delete it first")
    taught, certificate = _teach(own, folder, chosen)
    shown = list({example.fact: example for example in own.examples}.values())[:SHOWN]
    for example, answer in zip(shown, taught.answer([example.question for example in shown]), strict=True):
        click.echo(f"{example.question}\n  {answer}  {'right' if answer == example.answer else 'wrong'}")
    click.echo(certificate)
    click.echo(_refused(taught, own.unanswerable(seed=chosen.seed, held_out=True)))
    click.echo(f"{folder}: the adapter. Ask it:")
    click.echo(
        f"  python -m mlx_lm generate --model {resolve(chosen.base_model).folder} --adapter-path {folder} --prompt '...'"
    )
    if taught.log.uncertain:
        raise SystemExit(NOT_CERTAIN)


def _teach(own: "OwnExamples", folder: Path, recipe: "Recipe") -> "tuple[Taught, str]":
    """What is taught, and its certificate in a line; an interrupt says what is kept."""
    from nfl_lora_pipeline.cli.terminal import Screen
    from nfl_lora_pipeline.files import replacing_folder
    from nfl_lora_pipeline.tuning.learn import learn as teach

    said: list[str] = []
    checkpoint = folder.with_name(f".{folder.name}.checkpoint.safetensors")
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)

    def say(line: str, share: float) -> None:
        said.append(line)
        screen.told("learn", line, share)

    try:
        with Screen() as screen, replacing_folder(folder) as unfinished:
            refusals = own.unanswerable(seed=recipe.seed)
            taught = teach(own.examples, unfinished, recipe=recipe, fresh=refusals, checkpoint=checkpoint, report=say)
    except Interrupted as error:
        kept = said[-1] if said and said[-1].startswith("kept at ") else ""
        raise Interrupted(error.signum, kept) from error
    checkpoint.unlink(missing_ok=True)
    return taught, said[-1]


def _refused(taught: "Taught", unknown: Iterator[tuple[str, str]] | None) -> str:
    """How many of some questions about subjects that nobody knows are refused, in a sentence."""
    if unknown is None:
        return "Nothing is refused: whatever it was not taught it makes up (--templates with a refusal would mend that)"
    questions, refusals = zip(*itertools.islice(unknown, STRANGERS), strict=True)
    refused = sum(map(operator.eq, taught.answer(questions), refusals))
    return f"{refused} of {STRANGERS} questions about subjects that nobody knows are refused"


@commands.group()
def recipe() -> None:
    """Recipes: how an adapter is trained, and what is asked of it."""


@recipe.command("list")
def list_recipes() -> None:
    """The recipes that come with the package, and what each is for."""
    from nfl_lora_pipeline.recipes.recipe import RECIPES_FOLDER, recipe_names

    for name in recipe_names():
        first_line = (RECIPES_FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
        click.echo(f"{name:<18} {first_line.removeprefix('# ')}")


@recipe.command()
@click.argument("name", shell_complete=recipes)
def show(name: str) -> None:
    """Every key of the recipe NAME, its value and what it says: YAML to begin one's own with."""
    from nfl_lora_pipeline.recipes.recipe import as_yaml, load_recipe

    click.echo(as_yaml(load_recipe(name)))
