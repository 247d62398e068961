"""When an asset is made anew without a click: its input's content or its code changed, it is missing, or its last run failed.

Dagster's `eager()` goes by events: an identical week would train again. These go by data versions, which are hashes of
content here. Source: the conditions were put together from what Dagster 1.13 offers and tried on its daemon (DECISIONS.md).
"""

import dagster as dg

RETRY_CRON = "17 * * * *"  # once an hour


def on_change() -> dg.AutomationCondition:  # type: ignore[type-arg]
    """Input or code changed, or never made; nothing before it is missing, being made, or blocked by a check."""
    condition = dg.AutomationCondition
    never_made = condition.missing() & ~condition.execution_failed()
    changed = condition.any_deps_match(condition.data_version_changed()) | condition.code_version_changed()
    trigger: dg.AutomationCondition = never_made | changed | _failed()  # type: ignore[type-arg]
    wanted = trigger.since_last_handled()
    return (
        wanted
        & ~condition.any_deps_missing()
        & ~condition.any_deps_in_progress()
        & ~condition.in_progress()
        & condition.all_deps_blocking_checks_passed()
    ).with_label("its input or its code changed")


def on_failure() -> dg.AutomationCondition:  # type: ignore[type-arg]
    """Its last run failed and an hour has passed: for an asset that something else asks for."""
    condition = dg.AutomationCondition
    return (_failed().since_last_handled() & ~condition.in_progress()).with_label("its last run failed")


def _failed() -> dg.AutomationCondition:  # type: ignore[type-arg]
    condition = dg.AutomationCondition
    failed: dg.AutomationCondition = condition.execution_failed() & condition.cron_tick_passed(RETRY_CRON)  # type: ignore[type-arg]
    return failed
