import json

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from nfl_lora_pipeline.stats import COLUMNS
from nfl_lora_pipeline.weeks.players import NAMES, PLAYERS_SCHEMA, UPSTREAM_KEYS, BadWeek, parse_week
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests.upstream import row, week_bytes

WEEK = NflWeek(2025, 1)
ORIGIN = "data/2025/1/WR.json"


def read(content: bytes) -> tuple[pl.DataFrame, list[str]]:
    return parse_week(content, week=WEEK, origin=ORIGIN)


def only(**fields) -> dict[str, object]:
    return read(week_bytes([row(name="Ann Example", **fields)]))[0].row(0, named=True)


def complaint(content: bytes) -> str:
    with pytest.raises(BadWeek) as caught:
        read(content)
    message = str(caught.value)
    assert message.startswith(f"{ORIGIN}: ")
    return message


def second_row_complaint(**fields) -> str:
    """What is said about Bob, row 2 of 2, with these fields."""
    return complaint(week_bytes([row(name="Ann Example"), row(**{"name": "Bob Example"} | fields)]))


def test_a_week_becomes_the_typed_frame_sorted_by_player():
    bob = row(
        name="Bob Example",
        PlayerId="7",
        team="LA",
        opponent="SF",
        ReceivingRec="7",
        ReceivingYDS="143",
        ReceivingTD="1",
        Targets="9",
        ReceptionPercentage="78",
        RushingYDS="-8",
        RushingTD="2",
        TouchCarries="3",
        Fum="1",
        RetTD="4",
        PassingYDS="31",
        PassingTD="6",
        PassingInt="10",
        TotalPoints="24.60",
        **{"2PT": "5"},
    )
    ann = row(name="Ann Example", PlayerId="9", team="FA", opponent="Bye")
    expected = pl.DataFrame(
        {
            "season": [2025, 2025],
            "week": [1, 1],
            "player_id": ["9", "7"],
            "player": ["Ann Example", "Bob Example"],
            "team": ["FA", "LAR"],
            "opponent": [None, "SF"],
            "is_home": [None, True],
            "status": ["free_agent", "recorded"],
            "receiving_yards": [None, 143],
            "receptions": [None, 7],
            "targets": [None, 9],
            "receiving_touchdowns": [None, 1],
            "fantasy_points": [None, 24.6],
            "reception_pct": [None, 78],
            "rushing_yards": [None, -8],
            "carries": [None, 3],
            "passing_touchdowns": [None, 6],
            "fumbles": [None, 1],
            "rushing_touchdowns": [None, 2],
            "passing_yards": [None, 31],
            "two_point_conversions": [None, 5],
            "return_touchdowns": [None, 4],
            "interceptions": [None, 10],
        },
        schema=PLAYERS_SCHEMA,
    )
    players, warnings = read(week_bytes([bob, ann]))
    assert_frame_equal(players, expected)
    assert warnings == []


def test_upstreams_fields_in_use_are_fields_of_upstream():
    assert set(NAMES) <= set(UPSTREAM_KEYS)
    assert len(UPSTREAM_KEYS) == 29


def test_blank_yards_of_a_targeted_player_are_zero():
    ann = only(Targets="1")
    assert ann["status"] == "recorded"
    assert {stat: ann[stat] for stat in COLUMNS} == dict.fromkeys(COLUMNS, 0) | {"targets": 1}


@pytest.mark.parametrize(
    ("team", "opponent", "status"),
    [("KC", "@BUF", "no_record"), ("KC", "Bye", "bye"), ("FA", "Bye", "free_agent")],
)
def test_blanks_of_a_player_without_a_record_stay_null_points_too(team, opponent, status):
    ann = only(team=team, opponent=opponent, TotalPoints="0.00")
    assert ann["status"] == status
    assert {ann[stat] for stat in COLUMNS} == {None}


@pytest.mark.parametrize(
    "fields",
    [
        {"TouchCarries": "1"},
        {"Fum": "1", "TotalPoints": "-2.00"},
        {"RetTD": "1"},
        {"2PT": "1"},
        {"RushingYDS": "-3"},
        {"TotalPoints": "3.40"},
    ],
    ids=str,
)
def test_any_trace_makes_a_record(fields):
    ann = only(**fields)
    assert (ann["status"], ann["receiving_yards"]) == ("recorded", 0)


def test_zeros_for_blanks_are_no_record():
    assert only(Targets="0", ReceivingYDS="0", TotalPoints="0.00")["status"] == "no_record"


@pytest.mark.parametrize("team", ["FA", "KC"])
def test_a_player_who_left_his_team_after_the_game_keeps_his_record(team):
    ann = only(team=team, opponent="Bye", Targets="4", ReceivingYDS="97")
    assert (ann["status"], ann["receiving_yards"], ann["opponent"], ann["is_home"]) == ("recorded", 97, None, None)


def test_a_reception_percentage_needs_a_target():
    assert only(Targets="2")["reception_pct"] == 0
    assert only(TouchCarries="2")["reception_pct"] is None


@pytest.mark.parametrize(
    ("opponent", "against", "is_home"), [("@BUF", "BUF", False), ("KC", "KC", True), ("Bye", None, None)]
)
def test_an_at_sign_means_away(opponent, against, is_home):
    ann = only(opponent=opponent)
    assert (ann["opponent"], ann["is_home"]) == (against, is_home)


def test_the_rams_are_lar_as_team_and_as_opponent():
    assert only(team="LA")["team"] == "LAR"
    assert only(opponent="@LA")["opponent"] == "LAR"
    assert only(team="LAC")["team"] == "LAC"


def test_nulls_of_old_weeks_are_blanks():
    ann = only(Targets=None, TouchCarries=None, ReceptionPercentage=None, RetTD="1")
    assert (ann["targets"], ann["carries"], ann["reception_pct"]) == (0, 0, None)


def test_numbers_may_be_negative_or_bare_and_blanks_around_a_value_are_dropped():
    ann = only(ReceivingYDS=-4, Targets=" 2 ", TotalPoints=-0.4, PlayerName=" Ann Example ")
    assert (ann["receiving_yards"], ann["targets"], ann["fantasy_points"]) == (-4, 2, -0.4)
    assert ann["player"] == "Ann Example"


def test_minus_zero_points_are_zero():
    assert str(only(Targets="1", TotalPoints="-0.00")["fantasy_points"]) == "0.0"


def test_names_keep_their_accents_and_a_byte_order_mark_is_skipped():
    players, _ = read(b"\xef\xbb\xbf" + json.dumps([row(name="José Exämple")], ensure_ascii=False).encode())
    assert players["player"].to_list() == ["José Exämple"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty; fetch the week again"),
        (b" \n", "the file is empty; fetch the week again"),
        (b'[{"PlayerName":"Jos\xe9"}]', "not UTF-8: byte 19 is b'\\xe9'; fetch the week again"),
        (b"<!DOCTYPE html><html>", "this is a web page (HTML), not a week's JSON; check the address"),
        (b"\n <html>", "this is a web page (HTML), not a week's JSON; check the address"),
        (b'[{"PlayerName":\n"Ann', "the file ends early, at byte 20 (line 2); fetch the week again"),
        (b"[", "the file ends early, at byte 1 (line 1); fetch the week again"),
        ('["é" "x"]'.encode(), """not JSON at byte 6 (line 1): Expecting ',' delimiter, near '"x"]'"""),
        (b"404: Not Found", "not JSON at byte 3 (line 1): Extra data, near ': Not Found'"),
        (b"[" * 100_000 + b"]" * 100_000, "not a week's JSON: "),
        (b'{"players": []}', "expected a list of players, found an object"),
        (b"null", "expected a list of players, found null"),
        (b"[]", "the list of players is empty; the week may not be published yet: fetch it again later"),
        (b"[5]", "row 1: expected an object, found a number 5"),
    ],
    ids=range(14),
)
def test_what_is_no_list_of_objects_is_refused(content, problem):
    assert problem in complaint(content)


def test_an_element_that_is_no_object_is_named_by_its_row():
    assert "row 2: expected an object, found a list ['x']" in complaint(week_bytes([row(name="Ann"), ["x"]]))


def test_a_week_cut_anywhere_is_refused():
    whole = week_bytes([row(name="Ann Example"), row(name="Bob Example")])
    for length in range(0, len(whole), 7):
        assert "fetch the week again" in complaint(whole[:length])


@pytest.mark.parametrize("field", NAMES)
def test_a_field_in_use_that_no_row_has_is_named(field):
    rows = [row(name="Ann Example"), row(name="Bob Example")]
    for entry in rows:
        del entry[field]
    assert f"no row has the field {field}; upstream's format may have changed" in complaint(week_bytes(rows))


def test_a_field_in_use_that_one_row_lacks_is_named_with_the_row():
    rows = [row(name="Ann Example"), row(name="Bob Example")]
    del rows[1]["ReceivingYDS"]
    assert "row 2 (Bob Example) lacks the field ReceivingYDS; fetch" in complaint(week_bytes(rows))


@pytest.mark.parametrize("value", ["twelve", "3.5", "1e3", "--1", "12yd", "1,000", "9999999999", "१२", "nan"])
def test_junk_in_a_whole_number_is_refused(value):
    assert f"row 2 (Bob Example): ReceivingYDS: {value!r} is not a whole number; fetch the week again, or correct" in (
        second_row_complaint(ReceivingYDS=value)
    )


@pytest.mark.parametrize("value", ["many", "1.", ".5", "inf", "1.2.3"])
def test_junk_in_the_points_is_refused(value):
    assert f"row 2 (Bob Example): TotalPoints: {value!r} is not a number;" in second_row_complaint(TotalPoints=value)


@pytest.mark.parametrize("field", [field for field in NAMES if field.startswith(("Rec", "Tar", "Tou", "Ru", "Fum"))])
def test_every_count_is_checked(field):
    assert f"row 2 (Bob Example): {field}: 'x' is not a whole number" in second_row_complaint(**{field: "x"})


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("Targets", True, "true/false true"),
        ("Targets", [1], "a list [1]"),
        ("ReceivingYDS", {"n": 1}, 'an object {"n": 1}'),
        ("Team", 5, "a number 5"),
        ("PlayerId", 5, "a number 5"),
    ],
)
def test_a_value_of_an_unknown_type_is_refused(field, value, shown):
    assert f"row 2 (Bob Example): {field}: expected a string, found {shown};" in second_row_complaint(**{field: value})


@pytest.mark.parametrize("value", ["", "  ", None])
@pytest.mark.parametrize("field", ["PlayerId", "Team", "PlayerOpponent"])
def test_a_blank_id_team_or_opponent_is_refused(field, value):
    assert f"row 2 (Bob Example): {field}: '' is blank;" in second_row_complaint(**{field: value})


@pytest.mark.parametrize("value", ["", "  ", None])
def test_a_blank_name_is_refused_by_its_row_alone(value):
    assert "row 2: PlayerName: '' is blank;" in second_row_complaint(PlayerName=value)


@pytest.mark.parametrize(
    "letter",
    ["\x00", "\x1b", "\n", "\t", "\x7f", "\x85", "\x9b", "\u2028", "\u2029", "\u202e", "\u2066", "\u200f", "\ud800"],
    ids=ascii,
)
@pytest.mark.parametrize("field", ["PlayerName", "PlayerId", "Team", "PlayerOpponent", "ReceivingYDS", "TotalPoints"])
def test_what_no_text_may_hold_is_refused_and_shown_escaped(field, letter):
    value = f"7{letter}"
    told = second_row_complaint(**{field: value})
    who = f"row 2 ({value!a})" if field == "PlayerName" else "row 2 (Bob Example)"
    assert f"{who}: {field}: {value!a} holds {letter!a}, which no text in use may;" in told
    assert told.isprintable() and told.isascii()


@pytest.mark.parametrize(
    "letter", ["\xa0", "\u200b", "\u200d", "\xad", "e\u0301", "\u2019", "名", "\U0001f3c8"], ids=ascii
)
def test_letters_and_blanks_of_any_kind_stay_in_a_name(letter):
    assert only(PlayerName=f"Ann{letter}Lee")["player"] == f"Ann{letter}Lee"


def test_a_name_has_a_hundred_characters_at_most_and_so_has_every_text():
    assert only(PlayerName="é" * 100)["player"] == "é" * 100
    shown = "'" + "A" * 60 + "'…"
    assert f"row 2 ({shown}): PlayerName: {shown} has more than 100 characters (5,000);" in second_row_complaint(
        name="A" * 5000
    )
    assert "row 2 (Bob Example): TotalPoints: '1.000" in second_row_complaint(TotalPoints="1." + "0" * 99)


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        ('"Targets":"9"', "row 1 (Ann Example): the field 'Targets' stands twice; fetch the week again"),
        ('"PlayerName":"Bob"', "row 1 (Bob): the field 'PlayerName' stands twice;"),
        ('"Snaps":{"a":1,"a":1}', "row 1 (Ann Example): the field 'a' stands twice;"),
        ('"\\u001b":1,"\\u001b":2', "row 1 (Ann Example): the field '\\x1b' stands twice;"),
    ],
)
def test_a_key_that_stands_twice_is_refused(second, problem):
    content = week_bytes([row(name="Ann Example", Targets="1"), row(name="Bob Example")])
    assert problem in complaint(content.replace(b"},{", f",{second}}},{{".encode(), 1))


@pytest.mark.parametrize("value", ["[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000, "9" * 5_000])
def test_what_is_too_deep_or_too_large_to_read_is_one_line(value):
    content = week_bytes([row(name="Ann Example")]).replace(b'"Rank"', f'"Deep":{value},"Rank"'.encode())
    told = complaint(content)
    assert "not a week's JSON: " in told and told.isprintable() and len(told) < 300


@pytest.mark.parametrize("value", ["1e999", "-1e999", "NaN", "Infinity"])
def test_numbers_that_are_none_are_refused(value):
    content = week_bytes([row(name="Ann Example", ReceivingYDS=5)]).replace(
        b'"ReceivingYDS":5', f'"ReceivingYDS":{value}'.encode()
    )
    assert "row 1 (Ann Example): ReceivingYDS: " in complaint(content)


def test_unknown_fields_without_number_are_counted_and_not_listed():
    _, warnings = read(
        week_bytes([row(name="Ann", **RECORDED) | {f"x{n}": "" for n in range(500)} | {"\x1b" * 99: ""}])
    )
    assert len(warnings) == 21
    assert warnings[-1] == f"{ORIGIN}: 481 more unknown fields are left out"
    assert all(len(line) < 400 and line.isprintable() for line in warnings)


def test_an_id_that_stands_twice_is_refused():
    rows = [row(name="Ann Example", PlayerId="7"), row(name="Bob Example", PlayerId="7")]
    assert "row 2 (Bob Example): PlayerId: '7' stands in an earlier row too;" in complaint(week_bytes(rows))


RECORDED = {"Targets": "1"}


@pytest.mark.parametrize(
    ("rows", "warning"),
    [
        ([row(name="Ann") | {"Snaps": "1"} | RECORDED], f"{ORIGIN}: unknown field 'Snaps' is left out"),
        (
            [{key: value for key, value in row(name="Ann", **RECORDED).items() if key != "RzTouch"}],
            f"{ORIGIN}: field RzTouch is missing; it is not in use",
        ),
        ([row(name="Ann", team="LON", **RECORDED)], f"{ORIGIN}: unknown team 'LON'"),
        ([row(name="Ann", opponent="@LON", **RECORDED)], f"{ORIGIN}: unknown team 'LON'"),
        (
            [row(name="Ann", **RECORDED), row(name="Ann")],
            f"{ORIGIN}: more than one player is called 'Ann': what is asked about them is ambiguous",
        ),
    ],
    ids=["extra field", "missing unused field", "team", "opponent", "shared name"],
)
def test_what_is_odd_but_readable_is_a_warning_and_every_row_is_kept(rows, warning):
    players, warnings = read(week_bytes(rows))
    assert warnings == [warning]
    assert players.height == len(rows)
