"""The report's sections on what to beware of, on phrasing, on making things up and on what is left of the base."""

from collections.abc import Iterator, Sequence

from nfl_lora_pipeline.evaluation.baselines import Comparison, Way
from nfl_lora_pipeline.evaluation.metrics import (
    RISK_ACCEPTED,
    Ability,
    GeneralPrompts,
    GroupRecall,
    OverRefusal,
    PhrasingMetrics,
    Share,
    SharedLastNames,
    Sureness,
    UnanswerableQuestions,
    measured,
    of_asked,
)
from nfl_lora_pipeline.evaluation.probes import ALTERATIONS, IN_WORDS, SHARED
from nfl_lora_pipeline.evaluation.regressions import CoverageLoss, in_words
from nfl_lora_pipeline.evaluation.summary import Summary
from nfl_lora_pipeline.markdown import escape, percent, table
from nfl_lora_pipeline.stored import Miss

SHOWN = 3
PARTS_SHOWN = 20
ANSWER_COLUMNS = ("question", "expected", "answer")


def to_markdown(result: Comparison) -> str:
    """The section: a table of the ways, when tuning has paid for itself, and where it loses."""
    header = [
        "way",
        "right",
        "strangers refused",
        "tokens in, out",
        "seconds, p50",
        "p95",
        "peak memory",
        "pays off after",
    ]
    asked, ways = result.asked, result.ways
    return (
        "## Other ways to the same answer\n\n"
        f"{asked['facts']} recorded facts and {asked['strangers']} strangers, each asked by itself in a phrasing drawn by a "
        f"hash ({escape(result.device)}). Right is an answer with the right number. The last column says after how many "
        f"questions the {result.spent_seconds:,.0f} s of training and evaluation are made up for by quicker answers "
        f"({escape(result.tuned)}, against that way; less than a tenth saved counts as nothing).\n\n"
        f"{table(header, [_row(way, asked) for way in ways if way.seconds])}\n"
        f"{' '.join([*_not_tried(ways), _verdict(result)])}\n"
    )


def _row(way: Way, asked: dict[str, int]) -> list[str]:
    few = "" if way.asked == asked else f" of {way.asked['facts']}"
    return [
        way.name,
        percent(way.right) + few,
        percent(way.refused),
        f"{way.prompt_tokens:,.0f}, {way.output_tokens:,.0f}" if way.output_tokens else "none",
        _seconds(way.seconds["p50"]),
        _seconds(way.seconds["p95"]),
        f"{way.peak_memory_bytes / 1e6:,.1f} MB",
        _pays_off(way),
    ]


def _not_tried(ways: Sequence[Way]) -> list[str]:
    return [f"Not tried: {escape(way.name)} ({escape(way.note)})." for way in ways if not way.seconds]


def _seconds(seconds: float) -> str:
    return f"{seconds:.4f}" if seconds >= 0.0001 else "< 0.0001"


def _pays_off(way: Way) -> str:
    if way.kind == "tuned":
        return ""
    return "never" if way.pays_off_after is None else f"{way.pays_off_after:,} questions"


def _verdict(result: Comparison) -> str:
    tuned = next(way for way in result.ways if way.name == result.tuned)
    others = [way for way in result.ways if way.kind != "tuned" and way.seconds]
    as_good = [way for way in others if _at_least_as_good(way, tuned)]
    better = [way.name for way in as_good if way.seconds["p50"] <= tuned.seconds["p50"]]
    slower = [way.name for way in as_good if way.name not in better]
    lines = []
    if better:
        lines.append(
            f"**Tuning loses** to {_listed(better)}: at least as right, at least as careful with strangers, and quicker."
        )
    if slower:
        lines.append(f"As good as tuning but slower: {_listed(slower)}.")
    if not better and not slower:
        lines.append(
            "Tuning was the best of these ways on these questions: no other was as right and as careful with strangers."
        )
    return " ".join(lines)


def _at_least_as_good(way: Way, tuned: Way) -> bool:
    return (way.right or 0.0) >= (tuned.right or 0.0) and (way.refused or 0.0) >= (tuned.refused or 0.0)


def _listed(names: Sequence[str]) -> str:
    return "; ".join(map(escape, names))


def beware(summary: Summary) -> Iterator[str]:
    """What no gate judges and a user should know: what its weeks were warned of, what it gives up, who shares a name."""
    lines = list(summary.warnings)
    if (loss := summary.coverage_loss) and loss.parts:
        lines.append(f"the adapter {loss.against}, which was promoted before, also knew {in_words(loss.parts)}")
    lines += [
        f"in {week} several players bear a name, so that nothing is taught of them: {', '.join(names)}"
        for week, names in summary.shared_names.items()
    ]
    if lines:
        yield "Beware:\n\n" + "\n".join(f"- {escape(line)}" for line in lines) + "\n"


def coverage_loss(loss: CoverageLoss | None) -> Iterator[str]:
    """What the adapter before knows and this one was not taught."""
    if not loss or not loss.parts:
        return
    rows = [[part.name, f"{part.facts:,}"] for part in loss.parts]
    yield (
        f"## What is given up: {sum(part.facts for part in loss.parts):,} facts\n\nThe adapter "
        f"{escape(loss.against)} was promoted before this one and was taught them; this one was not.\n\n"
        f"{table(['what', 'facts'], rows[:PARTS_SHOWN])}"
    )


def phrasing(by_phrasing: Sequence[GroupRecall], found: PhrasingMetrics, over_refusal: OverRefusal) -> Iterator[str]:
    """How facts do in other words, and how often they are refused."""
    yield (
        "## Phrasing\n\nThe phrasings of the splits first: all facts to the letter, and of those with a number the right "
        "number. Below them the facts with a number, once each, asked as people type: there the right number counts, however "
        "the answer spells the name.\n"
    )
    yield table(
        ["asked with", "", "to the letter", "number", "a wrong number", "asked"], _phrasing_rows(by_phrasing, found)
    )
    if found.worst and found.worst_numbers:
        yield (
            f'The worst phrasing is "{escape(found.worst)}", with {percent(found.worst_numbers.share)} of numbers '
            f"right. Right to the letter in every phrasing, trained and held out: "
            f"{measured(found.in_all)} of {found.in_all.asked:,} facts.\n"
        )
    for each in found.altered:
        if each.worst:
            yield f"With {ALTERATIONS[each.name]}, {percent(each.refused.share)} were refused. Wrong, for instance:\n"
            yield _answers(each.worst)
    yield from _shared_last_names(found.shared_last_names)
    yield (
        "### Refused though known\n\n"
        f"{_refused(over_refusal.trained)} in trained phrasings, "
        f"{_refused(over_refusal.heldout_phrasings)} in held-out ones.\n"
    )
    if over_refusal.worst:
        yield _answers(over_refusal.worst)


def _shared_last_names(found: SharedLastNames) -> Iterator[str]:
    if found.right.asked:
        yield (
            f"Asked with {IN_WORDS[SHARED]}, it refused or named them all in {measured(found.right)} of "
            f"{found.right.asked:,} questions.\n"
        )
    if found.worst:
        yield _answers(found.worst)


def _phrasing_rows(by_phrasing: Sequence[GroupRecall], found: PhrasingMetrics) -> list[list[str]]:
    rows = [
        [each.name, each.split or "", measured(each.exact), measured(each.numbers), "", f"{each.exact.asked:,}"]
        for each in by_phrasing
    ]
    return rows + [
        [
            ALTERATIONS[each.name],
            "",
            "",
            measured(each.numbers),
            measured(each.wrong_numbers),
            f"{each.numbers.asked:,}",
        ]
        for each in found.altered
    ]


def hallucinations(groups: Sequence[UnanswerableQuestions], notes: Sequence[str]) -> Iterator[str]:
    """What is answered about people, weeks and stats without a fact."""
    yield (
        "## Making things up\n\nQuestions without an answer: nobody taught the model anything about these people, weeks or "
        "stats, so that any number is invented, 0 too, and any refusal is right.\n"
    )
    rows = [
        [
            IN_WORDS[group.name],
            *(measured(share) for share in (group.refused, group.invented, group.neither)),
            f"{group.refused.asked:,}",
            percent(group.base_refused.share),
        ]
        for group in groups
    ]
    if rows:
        yield table(["about", "refused", "a number invented", "neither", "asked", "base: refused"], rows)
    if notes:
        yield "Not asked: " + "; ".join(map(escape, notes)) + ".\n"
    for group in groups:
        if group.worst:
            yield f"About {IN_WORDS[group.name]}, for instance:\n"
            yield _answers(group.worst)


def retention(abilities: Sequence[Ability], general: GeneralPrompts | None) -> Iterator[str]:
    """What the base could do, before and after."""
    yield "## What is left of the base\n\nThe same questions to the base model and to the tuned one.\n"
    rows = [
        [ability.name, _ability(ability.base), _ability(ability.tuned), percent(ability.left)] for ability in abilities
    ]
    if rows:
        yield table(["", "base", "tuned", "left"], rows)
    if general is None:
        yield (
            "General prompts were not asked: the embedded base answers questions about receiving stats and nothing else, "
            "so that there is nothing in general that it could forget.\n"
        )
        return
    yield f"Of {general.prompts} general prompts, {of_asked(general.changed)} answers changed.\n"
    if general.worst:
        yield table(
            ["prompt", "base", "tuned"], [[each.question, each.base, each.tuned] for each in general.worst[:SHOWN]]
        )


def how_sure(found: Sureness) -> str:
    """Risk against coverage."""
    rows = [[f"{each.above:.2f}", measured(each.given), measured(each.wrong)] for each in found.points]
    columns = ["sure above", "facts with a number: one is given", "numbers given: wrong"]
    return (
        "## How sure it is\n\nAn answer is as sure as its least probable token. "
        f'`nfl-lora ask --sure` says "I am not sure" up to '
        f"{found.above:.2f}: above that no more than {percent(RISK_ACCEPTED)} of the numbers were wrong in one half of the "
        "questions outside of the trained phrasings, whether there was a number to give or not. The other half:\n\n"
        f"{table(columns, rows)}"
    )


def _ability(value: Share | float) -> str:
    return f"{measured(value)} of {value.asked:,}" if isinstance(value, Share) else f"{value:.2f}"


def _refused(share: Share) -> str:
    return f"{measured(share)} of {share.asked:,} questions" if share.asked else "none asked"


def _answers(misses: Sequence[Miss]) -> str:
    return table(ANSWER_COLUMNS, [[miss.question, miss.expected, miss.answer] for miss in misses[:SHOWN]])
