"""What the command line shows: progress while the job runs, and the outcome."""

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table


class Screen:
    """A bar for each step that tells how far it is, on standard error; plain lines where that is no terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.progress = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[line]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Screen":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.progress.stop()

    def told(self, step: str, line: str, share: float | None) -> None:
        """Show what a step says."""
        if not self.console.is_terminal:
            self.console.print(f"{step}: {line}", markup=False, soft_wrap=True)
            return
        if step not in self.tasks:
            for task in self.tasks.values():
                self.progress.update(task, completed=1.0)
            self.tasks[step] = self.progress.add_task(step, total=1.0, line="")
        self.progress.update(self.tasks[step], completed=1.0 if share is None else share, line=escape(line))


def show_outcome(summary: dict[str, Any], steps: dict[str, float]) -> None:
    """The three questions before and after, recall, what to beware of, seconds by step, and where the report lies."""
    console = Console(highlight=False, soft_wrap=True)
    for asked in summary["questions"]:
        right = asked["tuned"].strip() == asked["expected"]
        console.print(f"\n[bold]{escape(asked['question'])}[/]")
        console.print(f"  before  {escape(asked['base'])}")
        console.print(f"  after   {escape(asked['tuned'])}  {'[green]right[/]' if right else '[red]wrong[/]'}")
    table = Table(box=None, padding=(0, 3, 0, 0), show_header=False)
    for name, value in summary["recall"].items():
        table.add_row(name.replace("_", " "), "-" if value is None else f"{value:.1%}")
    console.print(f"\n[bold]Recall[/] of {summary['facts']:,} facts")
    console.print(table)
    for warning in summary["warnings"]:
        console.print(f"[bold yellow]Beware[/]: {escape(warning)}")
    for gate in summary["gates"]:
        if gate["passed"] and gate["name"] == "nothing_is_given_up" and gate["figure"]:
            console.print(f"[bold yellow]Beware[/]: {escape(gate['said'])}")
        if not gate["passed"]:
            what = "Not promoted" if gate["blocks"] else "Beware"
            console.print(f"[bold yellow]{what}[/]: {gate['name']}: {escape(gate['said'])}", soft_wrap=True)
    spent = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in steps.items())
    console.print(f"\n{spent}; {summary['seconds']:.0f} s in all", soft_wrap=True)
    console.print(f"Report: {escape(str(summary['report']))}", soft_wrap=True)


def in_short(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary for one line: without the curves of the training and the lists of wrong answers, which `report.json` has."""
    return _without(summary, ("losses", "certain", "worst"))


def _without(values: dict[str, Any], left_out: tuple[str, ...]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if key in left_out:
            continue
        if isinstance(value, dict):
            kept[key] = _without(value, left_out)
        elif isinstance(value, list):
            kept[key] = [_without(item, left_out) if isinstance(item, dict) else item for item in value]
        else:
            kept[key] = value
    return kept
