"""A season as it goes: a week is added, and the adapter goes on from the one before; then the same weeks from nothing.

    python -m benchmarks.season --data-dir DIR --weeks 1-10 --keep FOLDER --write

Each week is the command itself, `nfl-lora run --weeks 1-N`, into one store. What is finished stands in the folder that is kept,
so that the same command goes on where it was broken off. Writes docs/season.md and its picture.
"""

from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.judged_runs import Figure, JudgedRun, finished, note, part_of, run
from benchmarks.options import of_weeks
from benchmarks.tables import DOCUMENT, publish
from nfl_lora_pipeline.evaluation.gates import GATES
from nfl_lora_pipeline.files import replace_file
from nfl_lora_pipeline.markdown import Markup, table
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.reports.plots import ORANGE, in_percent, new_figure, to_svg
from nfl_lora_pipeline.weeks.week import parse_weeks

SEASON = DOCUMENT.with_name("season.md")
PICTURE = DOCUMENT.with_name("season.svg")
HEADING = """# A season, week by week

Each row is `nfl-lora run` with one more week, into the same store; the adapter goes on from the one before. The figures are
those of the report's gates, of the worst of the groups that each looks at; what misses the recipe's limit is in bold.
"""
SHOWN = {
    "recall_is_complete": "trained phrasings, worst week",
    "other_phrasings_are_understood": "held-out phrasings",
    "hand_written_wordings_are_understood": "written by hand",
    "careless_typing_is_understood": "careless typing",
    "last_names_are_understood": "last names",
    "shared_last_names_are_not_guessed": "shared last names",
    "typos_are_understood": "typos",
    "typos_get_no_wrong_number": "typos, a wrong number",
    "strangers_are_refused": "strangers refused",
    "other_positions_are_refused": "other positions refused",
    "other_weeks_are_refused": "other weeks refused",
    "other_seasons_are_refused": "other seasons refused",
    "other_stats_are_refused": "other stats refused",
    "incomplete_questions_get_no_number": "no number to what is incomplete",
    "known_facts_are_answered": "known refused",
    "base_is_retained": "base's abilities kept",
    "nothing_is_forgotten": "lost",
}
"""Gates, and what their figures are called in the table."""


def cell(figure: Figure) -> str:
    """A gate's figure, in bold where its limit is missed."""
    if figure.share is None:
        return ""
    text = f"{figure.share:.1%}"
    return Markup(f"**{text}**") if figure.passed is False else text


def as_row(name: str, made: JudgedRun) -> list[str]:
    """A line of the table."""
    spent = [
        f"{made.steps:,}",
        f"{made.training:.0f} s",
        f"{made.seconds:.0f} s",
        f"{made.certain:,} of {made.facts:,}",
    ]
    return [
        name,
        *spent,
        *(cell(made.figures[gate]) for gate in SHOWN),
        "yes" if made.is_promoted else Markup("**no**"),
    ]


def picture(weeks: Sequence[int], runs: Sequence[JudgedRun]) -> bytes:
    """What was lost by each update, and what the gates found after it."""
    figure = new_figure(5.0)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for gate in ("other_phrasings_are_understood", "hand_written_wordings_are_understood", "strangers_are_refused"):
        above.plot(weeks, [made.figures[gate].share for made in runs], marker="o", label=SHOWN[gate])
    above.yaxis.set_major_formatter(in_percent())
    above.legend(frameon=False, fontsize=8)
    lost = [made.figures["nothing_is_forgotten"].share or 0.0 for made in runs]
    below.bar(weeks, lost, color=ORANGE)
    below.set_ylim(0, max(0.01, *lost))
    below.yaxis.set_major_formatter(in_percent(1))
    below.set(xlabel="weeks taught", ylabel="lost")
    for axes in (above, below):
        axes.grid(visible=True, alpha=0.3)
    return to_svg(figure, "What the gates found after each week, and what the update lost")


def as_table(weeks: Sequence[int], warm: Sequence[JudgedRun], cold: JudgedRun | None, recipe_name: str) -> str:
    """Limits, a row a week, and the same weeks from nothing."""
    recipe = load_recipe(recipe_name)
    limits = [GATES[gate].of(recipe) for gate in SHOWN]
    lines = [["limit", "", "", "", "", *("" if limit is None else f"{limit:.1%}" for limit in limits), ""]]
    spoken = [str(weeks[0]), *(f"{weeks[0]} to {week}" for week in weeks[1:])]
    lines += [as_row(name, made) for name, made in zip(spoken, warm, strict=True)]
    if cold:
        lines.append(as_row(f"{spoken[-1]}, from nothing", cold))
    head = ["weeks", "steps", "training", "command to report", "facts certain", *SHOWN.values(), "promoted"]
    text = table(head, lines)
    if cold:
        text += (
            f"\n\nThe last week added, against all from nothing: {warm[-1].steps / cold.steps:.2f} of the steps, "
            f"{warm[-1].training / cold.training:.2f} of the seconds of training, "
            f"{warm[-1].seconds / cold.seconds:.2f} of those from command to report."
        )
    return text


@click.command()
@of_weeks("1-10")
@click.option(
    "--keep", type=click.Path(path_type=Path), required=True, help="Keep the stores here, and go on from them."
)
@click.option("--from-nothing/--no-from-nothing", default=True, help="Teach all weeks from nothing as well.")
@click.option("--write", is_flag=True, help="Renew the section in docs/season.md, and its picture.")
def main(
    data_dir: Path,
    season: int,
    weeks: str,
    stats: str,
    recipe_name: str,
    keep: Path,
    *,
    from_nothing: bool,
    write: bool,
) -> None:
    """Print the table."""
    numbers = parse_weeks(weeks)
    keep.mkdir(parents=True, exist_ok=True)

    def made(name: str, upto: Sequence[int]) -> list[JudgedRun]:
        """The runs of one store, those that are missing made now."""
        file = keep / f"{name}.jsonl"
        for last in upto[len(finished(file)) :]:
            spoken = f"{numbers[0]}-{last}" if last > numbers[0] else str(last)
            found = run(keep / name, recipe_name, data_dir, season=season, weeks=spoken, stats=stats)
            note(found, file)
            click.echo(f"  weeks {spoken}: {as_row(name, found)}", err=True)
        return finished(file)

    warm = made("week_by_week", numbers)
    cold = made("from_nothing", numbers[-1:])[0] if from_nothing else None
    body = as_table(numbers, warm, cold, recipe_name)
    if write:
        replace_file(PICTURE, picture(numbers, warm))
        body += f"\n\n![Recall, refusals and lost facts, week by week]({PICTURE.name})"
    title = f"Weeks {weeks} of {season}, {stats}, recipe {recipe_name}"
    publish(title, body, write=write, part=part_of(recipe_name, stats), document=SEASON, heading=HEADING)


if __name__ == "__main__":
    main()
