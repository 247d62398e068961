"""The comparison of `alternatives` as a section of the report."""

from typing import Any

from nfl_lora_pipeline.markdown import escape, percent, table


def to_markdown(result: dict[str, Any]) -> str:
    """The section: a table of the ways, when tuning has paid for itself, and where it loses.

    Args:
        result: of `alternatives.compare`.
    """
    asked, ways = result["asked"], result["ways"]
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
    return (
        "## Other ways to the same answer\n\n"
        f"{asked['facts']} recorded facts and {asked['strangers']} strangers, each asked by itself in a phrasing drawn by a "
        f"hash ({escape(result['device'])}). Right is an answer with the right number. The last column says after how many "
        f"questions the {result['spent_seconds']:,.0f} s of training and evaluation are made up for by quicker answers "
        f"({escape(result['tuned'])}, against that way; less than a tenth saved counts as nothing).\n\n"
        f"{table(header, [_row(way, asked) for way in ways if way['seconds']])}\n"
        f"{' '.join([*_not_tried(ways), _verdict(result)])}\n"
    )


def _row(way: dict[str, Any], asked: dict[str, int]) -> list[str]:
    few = "" if way["asked"] == asked else f" of {way['asked']['facts']}"
    return [
        way["name"],
        percent(way["right"]) + few,
        percent(way["refused"]),
        f"{way['prompt_tokens']:,.0f}, {way['output_tokens']:,.0f}" if way["output_tokens"] else "none",
        _seconds(way["seconds"]["p50"]),
        _seconds(way["seconds"]["p95"]),
        f"{way['peak_memory_bytes'] / 1e6:,.1f} MB",
        _pays_off(way),
    ]


def _not_tried(ways: list[dict[str, Any]]) -> list[str]:
    return [f"Not tried: {escape(way['name'])} ({escape(way['note'])})." for way in ways if not way["seconds"]]


def _seconds(seconds: float) -> str:
    return f"{seconds:.4f}" if seconds >= 0.0001 else "< 0.0001"


def _pays_off(way: dict[str, Any]) -> str:
    if way["kind"] == "tuned":
        return ""
    return "never" if way["pays_off_after"] is None else f"{way['pays_off_after']:,} questions"


def _verdict(result: dict[str, Any]) -> str:
    tuned = next(way for way in result["ways"] if way["name"] == result["tuned"])
    others = [way for way in result["ways"] if way["kind"] != "tuned" and way["seconds"]]
    better = [
        way["name"]
        for way in others
        if _at_least_as_good(way, tuned) and way["seconds"]["p50"] <= tuned["seconds"]["p50"]
    ]
    slower = [way["name"] for way in others if _at_least_as_good(way, tuned) and way["name"] not in better]
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


def _at_least_as_good(way: dict[str, Any], tuned: dict[str, Any]) -> bool:
    return all((way[name] or 0.0) >= (tuned[name] or 0.0) for name in ("right", "refused"))


def _listed(names: list[str]) -> str:
    return "; ".join(map(escape, names))
