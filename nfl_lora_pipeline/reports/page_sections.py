"""The sections of a report: what its figures rest on, a table or two each, and what its words mean."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nfl_lora_pipeline.dataset.templates import ANSWERS_ABOVE, spoken_stat
from nfl_lora_pipeline.dataset.typed import fill
from nfl_lora_pipeline.evaluation.baselines import Comparison, Way
from nfl_lora_pipeline.evaluation.gates import Gate
from nfl_lora_pipeline.evaluation.metrics import (
    RISK_ACCEPTED,
    Ability,
    CommonestNumber,
    GeneralPrompts,
    GroupRecall,
    HeldBack,
    OverRefusal,
    PhrasingMetrics,
    Share,
    Sureness,
    UnanswerableQuestions,
    measured,
    of_asked,
    share_of,
)
from nfl_lora_pipeline.evaluation.probes import ALTERATIONS, IN_WORDS, KNOWN, SHARED
from nfl_lora_pipeline.evaluation.regressions import CoverageLoss, Regressions, in_words
from nfl_lora_pipeline.evaluation.summary import Exam, Misses, ShownAnswers, Summary, WrongAnswer
from nfl_lora_pipeline.markdown import Markup, escape, percent, table
from nfl_lora_pipeline.stored import Miss
from nfl_lora_pipeline.weeks.week import NflWeek

SHOWN = 3
PARTS_SHOWN = 20
MISSES_SHOWN = 20
ANSWER_COLUMNS = ("question", "expected", "answer")
MISS_COLUMNS = ("question", "asked as", "expected", "answer")
PLAYER = "Nico Collins"  # in the sentence that stands for a wording
USES = {
    "evaluation_is_complete": "anything, since not all was asked",
    "recall_is_complete": "what it was taught, in the words that it was taught in",
    "other_phrasings_are_understood": "what it was taught, in other words",
    "hand_written_wordings_are_understood": "questions as people write them",
    "bare_words_are_understood": "questions in bare words, as into a search box",
    "careless_typing_is_understood": "questions that are typed carelessly",
    "last_names_are_understood": "people by their last name alone",
    "shared_last_names_are_not_guessed": "a last name that several people bear",
    "typos_are_understood": "names with a typo",
    "typos_get_no_wrong_number": "names with a typo, where a wrong number does harm",
    "strangers_are_refused": "people who may not exist",
    "other_positions_are_refused": "people of other positions",
    "other_weeks_are_refused": "weeks that it was not taught",
    "other_seasons_are_refused": "seasons that it was not taught",
    "other_stats_are_refused": "stats that it was not taught",
    "incomplete_questions_get_no_number": "questions about more or less than one stat of one player in one week",
    "known_facts_are_answered": "who needs an answer to all that it was taught",
    "base_is_retained": "what its base could do before",
    "general_prompts_are_retained": "general talk",
    "nothing_is_forgotten": "what the adapter before it knew by heart",
    "coverage_is_kept": "all that the adapter before it was taught",
}
"""What an adapter is not for that misses a gate."""
WORDS = {
    "fact": "one stat of one player in one week: a number, that there was no game (bye), or that nothing is recorded",
    "trained phrasing": "a wording of the question that facts are taught in",
    "phrasing never trained": "a wording of the question that is kept for this report; nothing was taught in it",
    "right to the letter": "the answer is the reference answer, letter for letter",
    "right number": "the number in the answer is the right one, and there is no other, whatever the words",
    "refused": "the answer says that nothing is recorded, or that it does not know, in any words, and gives no number",
    "a number invented": "a number, 0 too, where there is none to know",
    "stranger": "somebody who does not exist, or of whom nothing was taught",
    "certain": f"the answer as a whole has a probability above {ANSWERS_ABOVE} in every trained phrasing, and is told",
    "sure": "how probable an answer is as a whole: the product of its tokens' probabilities",
    "held back": f"an answer of which the model is no surer than {ANSWERS_ABOVE}; who asks is told that it is not sure",
    "lost": "right in the adapter before this one, and wrong now, asked with the same words",
    "limit": "what the recipe wants of a figure; a gate is a figure held against its limit",
    "interval": "in brackets, in per cent: where the figure lies with 95% confidence if the questions are independent (Wilson)",
}
"""The words of a report, each with its one meaning."""
SPLITS = {"train": "trained", "valid": "never trained", "test": "never trained"}


@dataclass(frozen=True)
class Section:
    """A section of a report.

    Attributes:
        title: in Markdown, without marks of a heading.
        body: in Markdown.
        headline: what it comes to in a few words, as they are.
    """

    title: str
    body: str
    headline: str = ""


def read_section(markdown: str) -> Section:
    """A section that a command has added, from its Markdown."""
    title, _, body = markdown.strip().partition("\n")
    return Section(title.lstrip("# "), body.strip())


def spoken(name: str) -> str:
    """A name of the program in words; what is no such name stays."""
    return name.replace("_", " ") if name.isidentifier() else name


def asked_like(wording: str, summary: Summary) -> str:
    """A wording of the templates as somebody asks it, about the report's own stat and week."""
    week = NflWeek.parse(summary.weeks[0])
    return fill(wording, PLAYER, spoken_stat(summary.stats[0]), week.week, week.season)


def _blocks(*blocks: str | Iterator[str]) -> str:
    texts = [text for block in blocks for text in ([block] if isinstance(block, str) else block)]
    return "\n\n".join(text.rstrip() for text in texts if text)


def _cell(share: Share) -> str:
    return f"{measured(share)} of {share.asked:,}" if share.asked else "-"


def questions(shown: Sequence[ShownAnswers]) -> str:
    """The three questions before and after."""
    rows = [
        [each.question, each.expected, str(each.base), each.tuned, _right(each.tuned == each.expected)]
        for each in shown
    ]
    return table(["question", "expected", "before (base)", "after (tuned)", "it is"], rows)


def _right(is_right: bool) -> str:
    return "right" if is_right else Markup("**wrong**")


def gates(found: Sequence[Gate]) -> Section:
    """Every gate with its verdict."""
    rows = [[spoken(gate.name), _passed(gate), gate.explanation] for gate in found]
    passed = sum(gate.passed is True for gate in found)
    missed = sum(gate.missed for gate in found)
    headline = f"{passed} passed, {missed} missed, {len(found) - passed - missed} not judged"
    return Section("Gates of promotion", table(["gate", "verdict", "figure and limit"], rows), headline)


def _passed(gate: Gate) -> str:
    if gate.passed is None:
        return Markup("*not judged*")
    if gate.passed:
        return "passed"
    return Markup("**failed**" if gate.blocks else "**missed**, which keeps no adapter back")


def recall(summary: Summary) -> Section:
    """Whether what was taught is known, in all and by what it is of."""
    training = summary.training
    certain = share_of(training.facts - len(training.uncertain), training.facts)
    base = f"The base model refuses {measured(summary.base.refusals)} of {summary.base.asked:,} questions."
    sure = f"{of_asked(certain)} facts are certain; the least probable token has p {training.lowest_probability:.2f}."
    tables = {
        "By stat": {spoken_stat(each.name): each for each in summary.by_stat},
        "By status of the player": {spoken(each.name): each for each in summary.by_status},
        "By week": {each.name: each for each in summary.by_week},
    }
    body = _blocks(
        table(["what", "right to the letter", "right number"], list(_recall_rows(summary))),
        f"{sure} {base} {_exam(summary.exam)}",
        _commonest(summary.commonest),
        (
            f"### {title}\n\nIn trained phrasings.\n\n{_recall_table(groups)}"
            for title, groups in tables.items()
            if len(groups) > 1
        ),
    )
    return Section("Recall", body, f"{of_asked(certain)} facts certain")


def _recall_rows(summary: Summary) -> Iterator[list[str]]:
    exact, numbers = summary.exact, summary.numbers
    held_out = [group.exact for group in summary.by_phrasing if group.split != "train"]
    every = share_of(sum(share.right for share in held_out), sum(share.asked for share in held_out))
    yield ["facts, in trained phrasings", _cell(exact["trained"]), _cell(numbers["trained"])]
    yield ["of these, numbers other than 0", _cell(exact["nonzero"]), _cell(numbers["nonzero"])]
    yield ["facts, in phrasings never trained", _cell(every), _cell(numbers["heldout_phrasings"])]
    yield ["of these, numbers and byes", _cell(exact["heldout_phrasings"]), _cell(numbers["heldout_phrasings"])]
    yield ["strangers refused", _cell(exact["refused_strangers"]), "-"]
    yield ["base model, numbers", "-", _cell(summary.base.numbers)]


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


def _commonest(found: Sequence[CommonestNumber]) -> Iterator[str]:
    if not found:
        return
    cells = [
        [
            spoken_stat(each.name),
            "-" if each.number is None else f"{each.number:g}",
            _cell(each.facts),
            percent(each.tuned),
        ]
        for each in found
    ]
    yield "### Against always saying the commonest number"
    yield (
        "What one gets who says the same number of everybody with a number, beside the tuned model on the same facts "
        "in trained phrasings."
    )
    yield table(["stat", "number", "facts that have it", "tuned: right number"], cells)


def _recall_table(groups: dict[str, GroupRecall]) -> str:
    rows = [[name, _cell(group.exact), _cell(group.numbers)] for name, group in groups.items()]
    return table(["of", "right to the letter", "right number"], rows)


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


def beware(summary: Summary) -> list[str]:
    """What no gate judges and a user should know: what its weeks were warned of, what it gives up, who shares a name."""
    lines = list(summary.warnings)
    if (loss := summary.coverage_loss) and loss.parts:
        lines.append(f"the adapter {loss.against}, which was promoted before, also knew {in_words(loss.parts)}")
    return lines + [
        f"in {week} several players bear a name, so that nothing is taught of them: {', '.join(names)}"
        for week, names in summary.shared_names.items()
    ]


def coverage_loss(loss: CoverageLoss) -> Section:
    """What the adapter before knows and this one was not taught."""
    rows = [[part.name, f"{part.facts:,}"] for part in loss.parts]
    given_up = f"{sum(part.facts for part in loss.parts):,} facts"
    body = _blocks(
        f"The adapter {escape(loss.against)} was promoted before this one and was taught {given_up} that this one was not.",
        table(["what", "facts"], rows[:PARTS_SHOWN]),
    )
    return Section("What is given up", body, given_up)


def changes(found: Regressions, by_week: Sequence[GroupRecall]) -> Section:
    """What was lost and gained against the adapter before, week by week."""
    standing = "the promoted one" if found.promoted else "the newest one before"
    every, trained = found.every, found.trained
    weeks = {each.week: each for each in found.by_week}
    rows = [
        [
            each.week,
            f"{each.questions:,}",
            *(percent(right / each.questions) for right in (each.right_before, each.right_now)),
            f"{each.lost:,}",
            f"{each.gained:,}",
        ]
        for each in found.by_week
    ]
    rows += [[group.name, "new", "-", "-", "-", "-"] for group in by_week if found.by_week and group.name not in weeks]
    first = found.worst[:MISSES_SHOWN]
    body = _blocks(
        f"Of {every.questions:,} questions with the same answer as in adapter {escape(found.against)}, {standing}, "
        f"{every.lost:,} were right and are wrong now; {trained.lost:,} of {trained.questions:,} in trained phrasings.",
        table(["week", "questions", "right before", "right now", "lost", "gained"], rows) if rows else "",
        f"The first {len(first)} that were lost:" if len(found.worst) > len(first) else "",
        table(
            MISS_COLUMNS,
            [[each.question, SPLITS.get(each.split, each.split), each.expected, each.answer] for each in first],
        )
        if first
        else "",
    )
    return Section("What changed since the adapter before", body, f"{every.lost:,} of {every.questions:,} lost")


def misses(found: Misses) -> Section:
    """The first wrong answers, and where the rest is."""
    if not found.count:
        return Section("Misses", "None.", "none")
    first = found.worst[:MISSES_SHOWN]
    beside = found.count - found.of_the_splits
    text = (
        f"{found.of_the_splits:,} in the phrasings of the splits and {beside:,} in the other groups."
        + (f" The first {len(first)} are here;" if found.count > len(first) else "")
        + f" {len(found.worst):,} are in `report.json`, and all in `predictions.parquet`, where `right` is false."
    )
    rows = [[each.question, _asked_as(each), each.expected, each.answer] for each in first]
    return Section("Misses", _blocks(text, table(MISS_COLUMNS, rows)), f"{found.count:,} wrong answers")


def _asked_as(wrong: WrongAnswer) -> str:
    return SPLITS.get(wrong.split, wrong.split) if wrong.group == KNOWN else IN_WORDS[wrong.group]


def training(summary: Summary) -> Section:
    """What was trained, on what, and how long it took."""
    log = summary.training
    seconds = sum(summary.seconds.values())
    body = table(
        ["what", "value"],
        [
            ["base model", f"{summary.base_model} ({summary.base_revision})"],
            ["recipe", summary.recipe],
            ["adapter", summary.adapter],
            ["weeks", ", ".join(f"{week} ({kind})" for week, kind in summary.sources.items())],
            ["stats", ", ".join(map(spoken_stat, summary.stats))],
            ["splits", spoken(summary.split_mode)],
            ["iterations", f"{log.iterations:,}, ended: {log.stopped}"],
            ["trained parameters", f"{log.trained_parameters:,}"],
            ["tokens a second", f"{log.tokens_per_second:,.0f}"],
            ["peak memory of arrays", f"{log.peak_memory_bytes / 1e6:,.0f} MB"],
            *([step, f"{spent:.1f} s"] for step, spent in summary.seconds.items()),
        ],
    )
    return Section("Training", body, f"{log.iterations:,} iterations, {seconds:.0f} s with the evaluation")


def words() -> Section:
    """What the words of the report mean."""
    return Section("What the words mean", table(["word", "meaning"], [list(each) for each in WORDS.items()]))


def phrasing(summary: Summary) -> Section:
    """How facts do in other words, and how often they are refused."""
    found: PhrasingMetrics = summary.phrasing
    typed = [each for each in found.altered if each.numbers.asked]
    phrasings = [
        [
            asked_like(each.name, summary),
            SPLITS[each.split or "train"],
            _cell(each.exact),
            _cell(each.numbers),
        ]
        for each in summary.by_phrasing
    ]
    ways = [
        [ALTERATIONS[each.name], _cell(each.numbers), measured(each.wrong_numbers), measured(each.refused)]
        for each in typed
    ]
    worst = min(typed, key=lambda each: each.numbers.fraction, default=None)
    examples = (
        f"With {ALTERATIONS[each.name]}, wrong for instance:\n\n{_answers(each.worst)}" for each in typed if each.worst
    )
    body = _blocks(
        "### In the phrasings of the splits\n\nAll facts; the right number of those that have one.",
        table(["asked like this", "phrasing", "right to the letter", "right number"], phrasings),
        _worst_phrasing(summary),
        "### As people type\n\nThe facts with a number, once each; however the answer spells the name." if ways else "",
        table(["asked with", "right number", "a wrong number", "refused"], ways) if ways else "",
        examples,
        _shared_last_names(found),
        _refused_though_known(summary.over_refusal),
    )
    headline = f"worst with {ALTERATIONS[worst.name]}: {percent(worst.numbers.share)}" if worst else ""
    return Section("Phrasing", body, headline)


def _worst_phrasing(summary: Summary) -> str:
    found = summary.phrasing
    if not found.worst or not found.worst_numbers:
        return ""
    return (
        f'The worst of these is "{escape(asked_like(found.worst, summary))}", with {percent(found.worst_numbers.share)} of '
        f"numbers right. Right to the letter in all of them: {measured(found.in_all)} of {found.in_all.asked:,} facts with a "
        "number."
    )


def _shared_last_names(found: PhrasingMetrics) -> Iterator[str]:
    shared = found.shared_last_names
    if shared.right.asked:
        yield (
            f"Asked with {IN_WORDS[SHARED]}, it refused or named them all in {measured(shared.right)} of "
            f"{shared.right.asked:,} questions."
        )
    if shared.worst:
        yield _answers(shared.worst)


def _refused_though_known(found: OverRefusal) -> Iterator[str]:
    yield (
        f"### Refused though known\n\n{_refused(found.trained)} in trained phrasings, "
        f"{_refused(found.heldout_phrasings)} in phrasings never trained."
    )
    if found.worst:
        yield _answers(found.worst)


def hallucinations(groups: Sequence[UnanswerableQuestions], notes: Sequence[str]) -> Section:
    """What is answered about people, weeks and stats without a fact."""
    rows = [
        [
            IN_WORDS[group.name],
            f"{group.refused.asked:,}",
            *(measured(share) for share in (group.refused, group.invented, group.neither)),
            percent(group.base_refused.share),
        ]
        for group in groups
    ]
    body = _blocks(
        "Questions without an answer: nobody taught the model anything about these people, weeks or stats, so that any "
        "number is invented, and any refusal is right.",
        table(["about", "questions", "refused", "a number invented", "neither", "base: refused"], rows) if rows else "",
        f"Not asked: {'; '.join(map(escape, notes))}." if notes else "",
        (f"About {IN_WORDS[group.name]}, for instance:\n\n{_answers(group.worst)}" for group in groups if group.worst),
    )
    worst = min(groups, key=lambda group: group.refused.fraction, default=None)
    headline = f"worst about {IN_WORDS[worst.name]}: {percent(worst.refused.share)} refused" if worst else ""
    return Section("Making things up", body, headline)


def retention(abilities: Sequence[Ability], general: GeneralPrompts | None) -> Section:
    """What the base could do, before and after."""
    rows = [
        [ability.name, _ability(ability.base), _ability(ability.tuned), percent(ability.left)] for ability in abilities
    ]
    body = _blocks(
        "The same questions to the base model and to the tuned one.",
        table(["ability", "base", "tuned", "left"], rows) if rows else "",
        _general(general),
    )
    least = min((ability.left for ability in abilities), default=None)
    return Section(
        "What is left of the base", body, "" if least is None else f"{percent(least)} of the least kept ability"
    )


def _general(general: GeneralPrompts | None) -> Iterator[str]:
    if general is None:
        yield (
            "General prompts were not asked: the embedded base answers questions about receiving stats and nothing else, "
            "so that there is nothing in general that it could forget."
        )
        return
    yield f"Of {general.prompts} general prompts, {of_asked(general.changed)} answers changed."
    if general.worst:
        rows = [[each.question, each.base, each.tuned] for each in general.worst[:SHOWN]]
        yield table(["prompt", "base", "tuned"], rows)


def how_sure(found: Sureness) -> Section:
    """Risk against coverage, and what is held back."""
    rows = [[f"{each.above:.2f}", measured(each.given), measured(each.wrong)] for each in found.points]
    columns = ["sure above", "facts with a number: one is given", "numbers given: wrong"]
    text = (
        f"A number, or that nothing is recorded, is told where the answer has a probability above {ANSWERS_ABOVE}. "
        f"`nfl-lora ask --sure` holds numbers back up to {found.above:.2f}: above that no more than {percent(RISK_ACCEPTED)} "
        "of them were wrong in one half of the questions outside of the trained phrasings, whether there was a number to give "
        "or not. The other half:"
    )
    wrong, right = sum(each.wrong for each in found.held_back), sum(each.right for each in found.held_back)
    body = _blocks(text, table(columns, rows), _held_back(found.held_back) if found.held_back else "")
    return Section("How sure it is", body, f"{wrong:,} wrong and {right:,} right numbers were held back")


def _held_back(found: Sequence[HeldBack]) -> str:
    text = (
        "Answers that the model gave and nobody was told. An engine that gets the adapter without this package, and "
        "`nfl-lora ask --raw`, say them:"
    )
    rows = [
        [IN_WORDS[each.group], *(f"{n:,}" for n in (each.asked, each.wrong, each.right, each.refusals))]
        for each in found
    ]
    columns = ["questions", "asked", "held back: wrong numbers", "right numbers", "refusals"]
    return _blocks(text, table(columns, rows))


def _ability(value: Share | float) -> str:
    return f"{measured(value)} of {value.asked:,}" if isinstance(value, Share) else f"{value:.2f}"


def _refused(share: Share) -> str:
    return f"{measured(share)} of {share.asked:,} questions" if share.asked else "none asked"


def _answers(wrong: Sequence[Miss]) -> str:
    return table(ANSWER_COLUMNS, [[miss.question, miss.expected, miss.answer] for miss in wrong[:SHOWN]])
