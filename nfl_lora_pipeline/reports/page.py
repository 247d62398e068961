"""A report as Markdown, for whoever must decide whether to use the adapter: the verdict first, then what it rests on."""

from collections.abc import Iterator, Sequence
from typing import Any

from nfl_lora_pipeline.markdown import Markup, escape, measured, of_asked, percent, table
from nfl_lora_pipeline.reports.page_sections import beware, given_up, hallucinations, phrasing, retention

MISSES_SHOWN = 20
MISS_COLUMNS = ("question", "asked as", "expected", "said")


def to_markdown(summary: dict[str, Any], *, loss_plot: str) -> str:
    """The report for people; `loss_plot` is the address of the picture."""
    parts = [
        f"# What the model knows of {escape(', '.join(summary['weeks']))}\n",
        *_verdict(summary["gates"]),
        *beware(summary),
        *_gates(summary["gates"]),
        _three_questions(summary["questions"]),
        *_recall(summary),
        *phrasing(summary["by_phrasing"], summary["phrasing"], summary["over_refusal"]),
        *hallucinations(summary["unknown"], summary["notes"]),
        *retention(summary["retained"], summary["general"]),
        *([_lost(summary["lost"])] if summary["lost"] else []),
        *given_up(summary["given_up"]),
        *_misses(summary["misses"]),
        f"## Training\n\n![loss and certain rows over training]({loss_plot})\n",
        _training(summary),
    ]
    return "\n".join(parts) + "\n"


def _verdict(gates: Sequence[dict[str, Any]]) -> Iterator[str]:
    if not gates:
        return
    missed = [gate for gate in gates if not gate["passed"]]
    failed = [gate for gate in missed if gate["blocks"]]
    if failed:
        yield f"**Not to be used: {len(failed)} of {len(gates)} gates failed.** It is not promoted, because:\n"
    elif missed:
        yield f"**It may be used, but not for what follows: {len(missed)} of {len(gates)} limits are missed.**\n"
    else:
        yield f"**It may be used: all {len(gates)} gates passed.** Each holds a figure below against a limit of the recipe.\n"
    if missed:
        yield "\n".join(f"- {escape(gate['name'])}: {escape(gate['said'])}" for gate in failed or missed) + "\n"


def _gates(gates: Sequence[dict[str, Any]]) -> Iterator[str]:
    if gates:
        rows = [[gate["name"], _passed(gate), gate["said"]] for gate in gates]
        yield f"## Gates of promotion\n\n{table(['gate', '', 'figure and limit'], rows)}"


def _passed(gate: dict[str, Any]) -> str:
    if gate["passed"]:
        return "passed"
    return Markup("**failed**" if gate["blocks"] else "**missed**, which keeps no adapter back")


def _three_questions(questions: Sequence[dict[str, Any]]) -> str:
    rows = [
        [*(row[name] for name in ("question", "expected", "base", "tuned")), _right(row["tuned"] == row["expected"])]
        for row in questions
    ]
    return f"## Three questions, before and after\n\n{table(['question', 'expected', 'base', 'tuned', ''], rows)}"


def _right(is_right: bool) -> str:
    return "right" if is_right else Markup("**wrong**")


def _recall(summary: dict[str, Any]) -> Iterator[str]:
    exact, numbers, base = summary["exact"], summary["numbers"], summary["base"]
    yield (
        "## Recall\n\nAn answer is right to the letter, or its number is right, whatever the words. In brackets: the 95% "
        "interval (Wilson), as if questions were independent.\n"
    )
    told = (
        ("facts, in trained phrasings", "trained"),
        ("numbers other than 0, in trained phrasings", "nonzero"),
        ("facts, in phrasings never trained", "heldout_phrasings"),
    )
    rows = [
        [what, measured(exact[key]), measured(numbers[key]), f"{exact[key]['asked']:,} questions"] for what, key in told
    ]
    strangers = exact["refused_strangers"]
    rows.append(["strangers refused", measured(strangers), "", f"{strangers['asked']:,} questions"])
    rows.append(["base model", "", measured(base["numbers"]), f"{base['numbers']['asked']:,} questions"])
    yield table(["what", "to the letter", "number", "of"], rows)
    training = summary["training"]
    certain = training["facts"] - len(training["uncertain"])
    yield (
        f"{certain:,} of {training['facts']:,} facts are certain in every trained phrasing (every answer token above 0.5); "
        f"the least probable token has p {training['lowest_probability']:.2f}. The base model refuses "
        f"{measured(base['refusals'])} of {base['asked']:,} questions.\n"
    )
    yield from _commonest(summary["commonest"])
    for title, key in (("By stat", "by_stat"), ("By status of the player", "by_status"), ("By week", "by_week")):
        if len(summary[key]) > 1:
            yield f"### {title}\n\nIn trained phrasings.\n\n{_recall_table(summary[key])}"


def _commonest(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    cells = [
        [
            row["name"],
            "" if row["number"] is None else f"{row['number']:g}",
            measured(row),
            of_asked(row),
            percent(row["tuned"]),
        ]
        for row in rows
    ]
    yield (
        "### Against always saying the commonest number\n\nWhat one gets who says the same number of everybody with a number, "
        f"beside the tuned model on the same facts.\n\n{table(['', 'number', 'right', 'facts', 'tuned'], cells)}"
    )


def _recall_table(rows: Sequence[dict[str, Any]]) -> str:
    return table(
        ["", "right", "asked", "to the letter", "number"],
        [
            [row["name"], f"{row['right']:,}", f"{row['asked']:,}", measured(row), measured(row["numbers"])]
            for row in rows
        ],
    )


def _lost(lost: dict[str, Any]) -> str:
    standing = "the promoted one" if lost["promoted"] else "the newest one before"
    trained = lost["trained"]
    rows = [[row["question"], row["split"], row["expected"], row["said"]] for row in lost["worst"]]
    shown = rows[:MISSES_SHOWN]
    return (
        f"## What the update lost: {lost['lost']:,}\n\n"
        f"Of {lost['questions']:,} questions with the same answer as in adapter {escape(lost['against'])}, {standing}, "
        f"{lost['lost']:,} were right and are wrong now; {trained['lost']:,} of {trained['questions']:,} in trained phrasings."
        + (f" The first {len(shown)}:" if len(rows) > len(shown) else "")
        + "\n"
        + ("\n" + table(MISS_COLUMNS, shown) if shown else "")
    )


def _misses(misses: dict[str, Any]) -> Iterator[str]:
    yield f"## Misses: {misses['count']:,}\n"
    if not misses["count"]:
        return
    shown = misses["worst"][:MISSES_SHOWN]
    beside = misses["count"] - misses["of_the_splits"]
    yield (
        f"{misses['of_the_splits']:,} in the phrasings of the splits and {beside:,} in the other groups."
        + (f" The first {len(shown)} are here;" if misses["count"] > len(shown) else "")
        + f" {len(misses['worst']):,} are in `report.json`, and all in `predictions.parquet`, where `right` is false.\n"
    )
    rows = [
        [row["question"], row["split"] if row["group"] == "known" else row["group"], row["expected"], row["said"]]
        for row in shown
    ]
    yield table(MISS_COLUMNS, rows)


def _training(summary: dict[str, Any]) -> str:
    training = summary["training"]
    return table(
        ["", ""],
        [
            ["base model", f"{summary['base_model']} ({summary['base_revision']})"],
            ["recipe", summary["recipe"]],
            ["adapter", summary["adapter"]],
            ["weeks", ", ".join(f"{week} ({kind})" for week, kind in summary["sources"].items())],
            ["stats", ", ".join(summary["stats"])],
            ["split", summary["split_mode"]],
            ["iterations", f"{training['iterations']:,}, ended: {training['stopped']}"],
            ["trained parameters", f"{training['trained_parameters']:,}"],
            ["tokens a second", f"{training['tokens_per_second']:,.0f}"],
            ["peak memory of arrays", f"{training['peak_memory_bytes'] / 1e6:,.0f} MB"],
            *([step, f"{seconds:.1f} s"] for step, seconds in summary["seconds"].items()),
        ],
    )
