"""From predictions to `report.md` and `report.json`."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from nfl_lora_pipeline.files import replacing_folder
from nfl_lora_pipeline.scoring import is_refusal, number_in

ORIGINAL_QUESTIONS = [
    f"how many receiving yards did {player} have in week 1 of the 2025 NFL season?"
    for player in ("Nico Collins", "Ladd McConkey", "Rome Odunze")
]
SHOWN_COLUMNS = ["question", "answer", "refusal"]
MISSES_SHOWN = 20


@dataclass(frozen=True)
class RunFacts:
    """What was trained and evaluated, and on what.

    Attributes:
        weeks: partition keys.
        sources: where each week came from ("folder", "github" or "sample"), by partition key.
        raw_sha256: of each week's file as published, by partition key.
        evaluation_code: the version of the code that evaluates.
        adapter: its fingerprint.
        training: the fields of `curriculum.TrainingLog`.
        seconds: of training and evaluation.
    """

    base_model: str
    base_revision: str
    recipe: str
    weeks: list[str]
    stats: list[str]
    sources: dict[str, str]
    raw_sha256: dict[str, str]
    split_mode: str
    adapter: str
    evaluation_code: str
    training: dict[str, Any]
    seconds: dict[str, float]


def questions_to_show(rows: pl.DataFrame) -> pl.DataFrame:
    """Three questions to show before and after: the original ones, and where they are not among the rows, those about
    the largest numbers, asked in lower case.

    Returns:
        `question`, `answer` and `refusal`, three rows where there are so many.
    """
    originals = rows.filter(pl.col("question").is_in(ORIGINAL_QUESTIONS))
    original = originals.sort("fact").unique("question", keep="first").select(SHOWN_COLUMNS)
    asked = pl.DataFrame({"question": ORIGINAL_QUESTIONS}).join(original, on="question", maintain_order="left")
    lower_case = pl.col("question").str.contains("^[a-z]")
    others = (
        rows.filter(pl.col("kind") == "recorded", pl.col("split") == "train")
        .sort(lower_case, "value", "fact", "phrasing", descending=[True, True, False, False])
        .unique("fact", keep="first", maintain_order=True)
        .join(originals, on="fact", how="anti", maintain_order="left")
        .select(SHOWN_COLUMNS)
    )
    return pl.concat([asked, others]).head(len(ORIGINAL_QUESTIONS))


def with_verdict(predictions: pl.DataFrame) -> pl.DataFrame:
    """Predictions with `right` (Boolean): the reference answer to the letter, or of a stranger a refusal in any words."""
    refused = pl.Series([is_refusal(text) for text in predictions["tuned"]], dtype=pl.Boolean)
    exact = pl.col("tuned").str.strip_chars() == pl.col("answer")
    return predictions.with_columns(right=pl.when(pl.col("kind") == "stranger").then(refused).otherwise(exact))


def summarise(predictions: pl.DataFrame, facts: RunFacts, *, shown: pl.DataFrame) -> dict[str, Any]:
    """All figures of a report.

    Args:
        predictions: one row a question: the columns of `questions.qa_pairs`, `base` (what the base model said, null where
            it was not asked), `tuned` and `lowest`.
        facts: what was trained.
        shown: `question`, `answer`, `base` and `tuned` of the questions to show.

    Returns:
        A JSON-serialisable dict. An answer is right when it is the reference answer to the letter. `recall.trained` is over
        all facts in trained phrasings; `heldout_phrasings` over recorded facts and byes in phrasings that were not
        trained; `nonzero` over trained phrasings of numbers other than 0; `refused_strangers` the share of questions
        about invented people that are refused. A share is null where there was nothing to ask. `recall_by_week` is over
        trained phrasings, by partition key. `lost` and `gates` are left for who knows the adapter before this one and the
        thresholds.
    """
    scored = with_verdict(predictions)
    real, strangers = scored.filter(pl.col("kind") != "stranger"), scored.filter(pl.col("kind") == "stranger")
    trained = real.filter(pl.col("split") == "train")
    held_out = real.filter(pl.col("split") != "train", pl.col("kind") != "no_record")
    misses = scored.filter(~pl.col("right")).sort(pl.col("split") != "train", "fact", "phrasing")
    base_asked = scored.filter(pl.col("base").is_not_null())
    by_week = _recall_by(trained.with_columns(week=week_key()), "week")
    return {
        **asdict(facts),
        "questions": shown.select("question", "base", "tuned", expected="answer").to_dicts(),
        "recall": {
            "trained": _share(trained["right"]),
            "heldout_phrasings": _share(held_out["right"]),
            "nonzero": _share(trained.filter(pl.col("value") != 0)["right"]),
            "refused_strangers": _share(strangers["right"]),
        },
        "asked": {"trained": trained.height, "heldout_phrasings": held_out.height, "strangers": strangers.height},
        "facts": real["fact"].n_unique(),
        "recorded_facts": real.filter(pl.col("kind") == "recorded")["fact"].n_unique(),
        "base": {
            "numbers_right": _share(_base_numbers(base_asked)),
            "refused": _share(pl.Series([is_refusal(text) for text in base_asked["base"]], dtype=pl.Boolean)),
            "asked": base_asked.height,
        },
        "by_stat": _recall_by(trained.sort("stat"), "stat"),
        "by_kind": _recall_by(trained, "kind"),
        "by_week": by_week,
        "recall_by_week": {group["name"]: group["recall"] for group in by_week},
        "by_phrasing": _recall_by(real, "phrasing", "split"),
        "misses": {
            "count": misses.height,
            "worst": misses.select("question", "split", expected="answer", said="tuned").head(MISSES_SHOWN).to_dicts(),
        },
        "lost": None,
        "gates": [],
    }


def week_key() -> pl.Expr:
    """The partition key of a row's `season` and `week`."""
    return pl.format("{}-W{}", "season", pl.col("week").cast(pl.String).str.zfill(2))


def write_report(folder: Path, summary: dict[str, Any], predictions: pl.DataFrame, plot: bytes) -> None:
    """Write `report.md`, `report.json`, `predictions.parquet` and `loss.png`, all or none."""
    with replacing_folder(folder) as unfinished:
        (unfinished / "loss.png").write_bytes(plot)
        (unfinished / "report.md").write_text(to_markdown(summary, loss_plot="loss.png"), encoding="utf-8")
        (unfinished / "report.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        predictions.write_parquet(unfinished / "predictions.parquet")


def read_report(folder: Path, *, evaluation_code: str) -> tuple[dict[str, Any], pl.DataFrame, bytes] | None:
    """What `write_report` was given; None where there is no whole report, or other code has evaluated."""
    try:
        summary: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        if summary.get("evaluation_code") != evaluation_code:
            return None
        return summary, pl.read_parquet(folder / "predictions.parquet"), (folder / "loss.png").read_bytes()
    except (OSError, ValueError, pl.exceptions.PolarsError):
        return None


def to_markdown(summary: dict[str, Any], *, loss_plot: str) -> str:
    """The report for people; `loss_plot` is the address of the picture."""
    text = io.StringIO()
    weeks = ", ".join(f"{week} ({kind})" for week, kind in summary["sources"].items())
    print(f"# What the model knows of {_joined(summary['weeks'])}\n", file=text)
    if "sample" in summary["sources"].values():
        print(
            "> **These are invented people, not NFL data.** The bundled sample was used; only the three original questions "
            "are about real players.\n",
            file=text,
        )
    print("## Three questions, before and after\n", file=text)
    asked = [
        [
            row["question"],
            row["expected"],
            row["base"],
            row["tuned"],
            "right" if row["tuned"] == row["expected"] else "**wrong**",
        ]
        for row in summary["questions"]
    ]
    print(table(["question", "expected", "base", "tuned", ""], asked), file=text)
    training, recall, counted = summary["training"], summary["recall"], summary["asked"]
    certain = training["facts"] - len(training["uncertain"])
    print("## Recall\n", file=text)
    print(
        table(
            ["what", "share", "of"],
            [
                ["facts, in trained phrasings", percent(recall["trained"]), f"{counted['trained']:,} questions"],
                ["numbers other than 0, in trained phrasings", percent(recall["nonzero"]), ""],
                [
                    "facts, in phrasings never trained",
                    percent(recall["heldout_phrasings"]),
                    f"{counted['heldout_phrasings']:,} questions",
                ],
                ["strangers refused", percent(recall["refused_strangers"]), f"{counted['strangers']:,} questions"],
                [
                    "base model: numbers right",
                    percent(summary["base"]["numbers_right"]),
                    f"{summary['base']['asked']:,} questions",
                ],
                ["base model: refused", percent(summary["base"]["refused"]), ""],
            ],
        ),
        file=text,
    )
    print(
        f"{certain:,} of {training['facts']:,} facts are certain in every trained phrasing (every answer token above 0.5); "
        f"the least probable token has p {training['lowest_probability']:.2f}.\n",
        file=text,
    )
    for title, key in (("By stat", "by_stat"), ("By kind of fact", "by_kind"), ("By week", "by_week")):
        if len(summary[key]) > 1:
            print(f"### {title}\n\n{_recall_table(summary[key])}", file=text)
    print(f"### By phrasing\n\n{_recall_table(summary['by_phrasing'])}", file=text)
    if summary["lost"]:
        print(_lost_section(summary["lost"]), file=text)
    if summary["gates"]:
        gates = [
            [gate["name"], "passed" if gate["passed"] else "**failed**", gate["said"]] for gate in summary["gates"]
        ]
        print(f"## Gates of promotion\n\n{table(['', '', ''], gates)}", file=text)
    misses = summary["misses"]
    print(f"## Misses: {misses['count']:,}\n", file=text)
    if misses["worst"]:
        rows = [[row["question"], row["split"], row["expected"], row["said"]] for row in misses["worst"]]
        print(table(["question", "split", "expected", "said"], rows), file=text)
    print(f"## Training\n\n![loss and certain rows over training]({loss_plot})\n", file=text)
    print(
        table(
            ["", ""],
            [
                ["base model", f"{summary['base_model']} ({summary['base_revision']})"],
                ["recipe", summary["recipe"]],
                ["adapter", summary["adapter"]],
                ["weeks", weeks],
                ["stats", _joined(summary["stats"])],
                ["split", summary["split_mode"]],
                ["iterations", f"{training['iterations']:,}, ended: {training['stopped']}"],
                ["trained parameters", f"{training['trained_parameters']:,}"],
                ["tokens a second", f"{training['tokens_per_second']:,.0f}"],
                ["peak memory of arrays", f"{training['peak_memory_bytes'] / 1e6:,.0f} MB"],
                *([step, f"{seconds:.1f} s"] for step, seconds in summary["seconds"].items()),
            ],
        ),
        file=text,
    )
    return text.getvalue()


def _lost_section(lost: dict[str, Any]) -> str:
    standing = "the promoted one" if lost["promoted"] else "the newest one before"
    trained, rows = (
        lost["trained"],
        [[row["question"], row["split"], row["expected"], row["said"]] for row in lost["worst"]],
    )
    shown = rows[:MISSES_SHOWN]
    return (
        f"## What the update lost: {lost['lost']:,}\n\n"
        f"Of {lost['questions']:,} questions with the same answer as in adapter {lost['against']}, {standing}, "
        f"{lost['lost']:,} were right and are wrong now; {trained['lost']:,} of {trained['questions']:,} in trained phrasings."
        + (f" The first {len(shown)}:" if len(rows) > len(shown) else "")
        + "\n"
        + ("\n" + table(["question", "split", "expected", "said"], shown) if shown else "")
    )


def _base_numbers(asked: pl.DataFrame) -> pl.Series:
    recorded = asked.filter(pl.col("kind") == "recorded").select("base", "value")
    return pl.Series([number_in(said) == value for said, value in recorded.iter_rows()], dtype=pl.Boolean)


def _share(right: pl.Series) -> float | None:
    return None if right.is_empty() else float(right.mean())  # type: ignore[arg-type]


def _recall_by(scored: pl.DataFrame, *names: str) -> list[dict[str, Any]]:
    return (
        scored.group_by(names)
        .agg(right=pl.col("right").sum(), asked=pl.len(), recall=pl.col("right").mean())
        .sort(names[::-1])
        .rename({names[0]: "name"})
        .to_dicts()
    )


def _recall_table(rows: list[dict[str, Any]]) -> str:
    with_split = "split" in rows[0]
    return table(
        ["", *(["split"] if with_split else []), "right", "asked", "recall"],
        [
            [
                row["name"],
                *([row["split"]] if with_split else []),
                f"{row['right']:,}",
                f"{row['asked']:,}",
                percent(row["recall"]),
            ]
            for row in rows
        ],
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, whatever the cells hold."""
    lines = [header, ["---"] * len(header), *rows]
    return (
        "\n".join(
            "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
            for line in lines
        )
        + "\n"
    )


def percent(share: float | None) -> str:
    """A share for people: "100%" for all and nothing less, "-" for none."""
    if share is None:
        return "-"
    return "100%" if share == 1 else f"{min(share, 0.999):.1%}"


def _joined(names: Sequence[str]) -> str:
    return ", ".join(names)
