"""Records in files: of which version of their form they are, and who reads which."""

import json

import pytest

from nfl_lora_pipeline.evaluation.summary import Summary
from nfl_lora_pipeline.files import DamagedFile
from nfl_lora_pipeline.stored import Latest, Provenance, ReportOverview, json_bytes, read_json, read_overview, to_json
from nfl_lora_pipeline_tests.evaluations import pairs_of, perfect, summary_of

OLD_REPORT = {  # of the code before there were versions
    "adapter": "0" * 16,
    "raw_sha256": {"2025-W01": "5e1f"},
    "recall": {"trained": 1.0, "nonzero": None},
    "seconds": {"training": 12.5, "evaluation": 3.25},
    "questions": [{"question": "How many?", "base": "none", "tuned": "He had 5.", "expected": "He had 5."}],
    "gates": [{"name": "exam_is_whole", "passed": True, "said": "all"}],
}


@pytest.mark.parametrize("kind", [Latest, Provenance, ReportOverview, Summary])
def test_a_file_that_newer_code_has_written_is_refused_with_its_path_and_the_mend(tmp_path, kind):
    file = tmp_path / "record.json"
    file.write_text(json.dumps({"schema_version": 99, "adapter": "0"}))
    with pytest.raises(DamagedFile) as error:
        read_json(file, kind, mend="make it anew")
    wrong = f"is of schema version 99, which newer code has written; this code reads up to {kind.SCHEMA}"
    assert str(error.value) == f"{file}: {wrong}; update nfl_lora_pipeline, or make it anew"


def test_a_file_from_before_there_were_versions_is_of_the_first(tmp_path):
    file = tmp_path / "latest.json"
    file.write_text(json.dumps({"adapter": "0"}))
    latest = read_json(file, Latest, mend="")
    assert (latest.schema_version, latest.adapter, latest.previous) == (1, "0", None)
    assert latest.content() == {"adapter": "0"}


def test_of_an_old_report_recall_data_and_shown_answers_are_still_read(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(OLD_REPORT))
    overview = read_overview(tmp_path)
    assert (overview.recall, overview.raw_sha256) == (OLD_REPORT["recall"], OLD_REPORT["raw_sha256"])
    assert overview.seconds["evaluation"] == 3.25
    assert [(shown.question, shown.tuned) for shown in overview.questions] == [("How many?", "He had 5.")]


def test_the_whole_of_an_old_report_is_refused_in_one_line(tmp_path):
    file = tmp_path / "report.json"
    file.write_text(json.dumps(OLD_REPORT))
    with pytest.raises(DamagedFile) as error:
        read_json(file, Summary, mend="run again")
    assert str(error.value) == f"{file}: is of schema version 1, and this code reads from 4 on; run again"


def test_a_report_says_of_which_version_it_is_and_comes_back_as_it_was(tmp_path):
    summary = summary_of(perfect(pairs_of()))
    file = tmp_path / "report.json"
    file.write_bytes(json_bytes(to_json(summary)))
    assert json.loads(file.read_text())["schema_version"] == Summary.SCHEMA
    assert read_json(file, Summary, mend="") == summary
    assert read_overview(tmp_path).recall == summary.recall


def test_what_is_missing_in_a_report_is_named(tmp_path):
    content = to_json(summary_of(perfect(pairs_of())))
    del content["phrasing"]["in_all"]["asked"]
    file = tmp_path / "report.json"
    file.write_bytes(json_bytes(content))
    with pytest.raises(DamagedFile, match=r"is damaged \(phrasing\.in_all\.asked: Field required\)"):
        read_json(file, Summary, mend="")
