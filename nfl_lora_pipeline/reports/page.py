"""A report as Markdown, for whoever must decide whether to use the adapter: the verdict first, then what it rests on."""

from collections.abc import Iterator, Sequence

from nfl_lora_pipeline.evaluation.gates import Gate, head_line
from nfl_lora_pipeline.evaluation.metrics import CommonestNumber, GroupRecall, Share, measured, of_asked
from nfl_lora_pipeline.evaluation.probes import IN_WORDS, KNOWN
from nfl_lora_pipeline.evaluation.regressions import Regressions
from nfl_lora_pipeline.evaluation.summary import Exam, Misses, ShownAnswers, Summary
from nfl_lora_pipeline.markdown import Markup, escape, percent, table
from nfl_lora_pipeline.reports.page_sections import beware, coverage_loss, hallucinations, how_sure, phrasing, retention

MISSES_SHOWN = 20
MISS_COLUMNS = ("question", "asked as", "expected", "answer")


def to_markdown(summary: Summary, *, loss_plot: str) -> str:
    """The report for people; `loss_plot` is the address of the picture."""
    parts = [
        f"# What the model knows of {escape(', '.join(summary.weeks))}\n",
        *_verdict(summary.gates),
        *beware(summary),
        *_gates(summary.gates),
        _three_questions(summary.questions),
        *_recall(summary),
        *phrasing(summary.by_phrasing, summary.phrasing, summary.over_refusal),
        *hallucinations(summary.unknown, summary.notes),
        how_sure(summary.sureness),
        *retention(summary.retained, summary.general),
        *([_regressions(summary.regressions)] if summary.regressions else []),
        *coverage_loss(summary.coverage_loss),
        *_misses(summary.misses),
        f"## Training\n\n![loss and certain rows over training]({loss_plot})\n",
        _training(summary),
    ]
    return "\n".join(parts) + "\n"


def _verdict(gates: Sequence[Gate]) -> Iterator[str]:
    if not gates:
        return
    verdict, _, worst = head_line(gates).partition(". ")
    yield f"**{escape(verdict.rstrip('.'))}.**" + (f" {escape(worst)}" if worst else "") + "\n"
    misses = [gate for gate in gates if gate.missed]
    failures = [gate for gate in misses if gate.blocks]
    if misses:
        yield "It is not promoted, because:\n" if failures else "These limits of the recipe keep no adapter back:\n"
        yield "\n".join(f"- {escape(gate.name)}: {escape(gate.explanation)}" for gate in failures or misses) + "\n"


def _gates(gates: Sequence[Gate]) -> Iterator[str]:
    if gates:
        rows = [[gate.name, _passed(gate), gate.explanation] for gate in gates]
        yield f"## Gates of promotion\n\n{table(['gate', '', 'figure and limit'], rows)}"


def _passed(gate: Gate) -> str:
    if gate.passed is None:
        return Markup("*not judged*")
    if gate.passed:
        return "passed"
    return Markup("**failed**" if gate.blocks else "**missed**, which keeps no adapter back")


def _three_questions(questions: Sequence[ShownAnswers]) -> str:
    rows = [
        [each.question, each.expected, str(each.base), each.tuned, _right(each.tuned == each.expected)]
        for each in questions
    ]
    return f"## Three questions, before and after\n\n{table(['question', 'expected', 'base', 'tuned', ''], rows)}"


def _right(is_right: bool) -> str:
    return "right" if is_right else Markup("**wrong**")


def _recall(summary: Summary) -> Iterator[str]:
    yield (
        "## Recall\n\nAn answer is right to the letter, or its number is right, whatever the words. In brackets: the 95% "
        "interval (Wilson), as if questions were independent.\n"
    )
    yield table(["what", "to the letter", "number", "of"], _recall_rows(summary))
    training = summary.training
    certain = training.facts - len(training.uncertain)
    yield (
        f"{certain:,} of {training.facts:,} facts are certain in every trained phrasing (every answer token above 0.5); "
        f"the least probable token has p {training.lowest_probability:.2f}. The base model refuses "
        f"{measured(summary.base.refusals)} of {summary.base.asked:,} questions. "
        f"{_exam(summary.exam)}\n"
    )
    yield from _commonest(summary.commonest)
    tables = {"By stat": summary.by_stat, "By status of the player": summary.by_status, "By week": summary.by_week}
    for title, groups in tables.items():
        if len(groups) > 1:
            yield f"### {title}\n\nIn trained phrasings.\n\n{_recall_table(groups)}"


def _exam(exam: Exam) -> str:
    asked = f"Of {exam.possible:,} questions {exam.asked:,} were asked"
    if exam.certified:
        asked += f"; {exam.certified:,} are in the certificate of these weights"
    if left := exam.possible - exam.asked - exam.certified:
        asked += f"; {left:,} were left out, where a sample tells on which side of its limit a figure lies"
    return (
        f"{asked}. An answer whose every token is the most probable one is not generated; of a sample of them that was, "
        f"{of_asked(exam.generated)} came out the same."
    )


def _recall_rows(summary: Summary) -> list[list[str]]:
    def row(name: str, exact: Share | None, numbers: Share | None) -> list[str]:
        asked = exact or numbers
        cells = [measured(share) if share else "" for share in (exact, numbers)]
        return [name, *cells, f"{asked.asked:,} questions" if asked else ""]

    exact, numbers = summary.exact, summary.numbers
    return [
        row("facts, in trained phrasings", exact["trained"], numbers["trained"]),
        row("numbers other than 0, in trained phrasings", exact["nonzero"], numbers["nonzero"]),
        row("facts, in phrasings never trained", exact["heldout_phrasings"], numbers["heldout_phrasings"]),
        row("strangers refused", exact["refused_strangers"], None),
        row("base model", None, summary.base.numbers),
    ]


def _commonest(found: Sequence[CommonestNumber]) -> Iterator[str]:
    if not found:
        return
    cells = [
        [
            each.name,
            "" if each.number is None else f"{each.number:g}",
            measured(each.facts),
            of_asked(each.facts),
            percent(each.tuned),
        ]
        for each in found
    ]
    yield (
        "### Against always saying the commonest number\n\nWhat one gets who says the same number of everybody with a number, "
        f"beside the tuned model on the same facts.\n\n{table(['', 'number', 'right', 'facts', 'tuned'], cells)}"
    )


def _recall_table(groups: Sequence[GroupRecall]) -> str:
    rows = [
        [
            group.name,
            f"{group.exact.right:,}",
            f"{group.exact.asked:,}",
            measured(group.exact),
            measured(group.numbers),
        ]
        for group in groups
    ]
    return table(["", "right", "asked", "to the letter", "number"], rows)


def _regressions(regressions: Regressions) -> str:
    standing = "the promoted one" if regressions.promoted else "the newest one before"
    every, trained = regressions.every, regressions.trained
    rows = [[each.question, each.split, each.expected, each.answer] for each in regressions.worst]
    first = rows[:MISSES_SHOWN]
    return (
        f"## What the update lost: {every.lost:,}\n\n"
        f"Of {every.questions:,} questions with the same answer as in adapter {escape(regressions.against)}, {standing}, "
        f"{every.lost:,} were right and are wrong now; {trained.lost:,} of {trained.questions:,} in trained "
        "phrasings."
        + (f" The first {len(first)}:" if len(rows) > len(first) else "")
        + "\n"
        + ("\n" + table(MISS_COLUMNS, first) if first else "")
    )


def _misses(misses: Misses) -> Iterator[str]:
    yield f"## Misses: {misses.count:,}\n"
    if not misses.count:
        return
    first = misses.worst[:MISSES_SHOWN]
    beside = misses.count - misses.of_the_splits
    yield (
        f"{misses.of_the_splits:,} in the phrasings of the splits and {beside:,} in the other groups."
        + (f" The first {len(first)} are here;" if misses.count > len(first) else "")
        + f" {len(misses.worst):,} are in `report.json`, and all in `predictions.parquet`, where `right` is false.\n"
    )
    rows = [
        [each.question, each.split if each.group == KNOWN else IN_WORDS[each.group], each.expected, each.answer]
        for each in first
    ]
    yield table(MISS_COLUMNS, rows)


def _training(summary: Summary) -> str:
    training = summary.training
    return table(
        ["", ""],
        [
            ["base model", f"{summary.base_model} ({summary.base_revision})"],
            ["recipe", summary.recipe],
            ["adapter", summary.adapter],
            ["weeks", ", ".join(f"{week} ({kind})" for week, kind in summary.sources.items())],
            ["stats", ", ".join(summary.stats)],
            ["split", summary.split_mode],
            ["iterations", f"{training.iterations:,}, ended: {training.stopped}"],
            ["trained parameters", f"{training.trained_parameters:,}"],
            ["tokens a second", f"{training.tokens_per_second:,.0f}"],
            ["peak memory of arrays", f"{training.peak_memory_bytes / 1e6:,.0f} MB"],
            *([step, f"{seconds:.1f} s"] for step, seconds in summary.seconds.items()),
        ],
    )
