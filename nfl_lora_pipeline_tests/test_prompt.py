"""One way to write a chat: what is trained and evaluated is what generation is given and what it prints."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from mlx_lm import stream_generate

from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.evaluation.baselines import SequentialModel
from nfl_lora_pipeline.models import base_model
from nfl_lora_pipeline.models.base_model import EMBEDDED_FOLDER
from nfl_lora_pipeline.models.prompt import ANSWER_TOKENS, answered_tokens, prompt_tokens
from nfl_lora_pipeline.models.rows import answer_text, refuse_lossy, tokenize
from nfl_lora_pipeline.store import Store

QUESTION = "How many receiving yards did Nico Hale have in week 1 of the 2025 NFL season?"
ANSWER = "In week 1 of the 2025 NFL season, the receiving yards of Nico Hale were 84."
USER = [{"role": "user", "content": QUESTION}]

TURNS = (
    "{%- for message in messages %}{{- '<|' + message.role + '|>' + message.content + '<|end|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)
# As Qwen3's: the last answer is written behind an empty thought, which the prompt has where thinking is switched off.
QWEN = (
    "{%- set enable_thinking = IS_ON %}"
    "{%- for message in messages %}"
    "{%- if message.role == 'assistant' and loop.last %}"
    "{{- '<|assistant|><think>\n\n</think>\n\n' + message.content.lstrip('\n') + '<|end|>\n' }}"
    "{%- else %}{{- '<|' + message.role + '|>' + message.content + '<|end|>' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}"
    "{%- if enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
FITS = {
    "plain": TURNS,
    "qwen, thinking": QWEN.replace("IS_ON", "true"),
    "qwen, not thinking": QWEN.replace("IS_ON", "false"),
    "a system text": "{{- '<|assistant|>You know football.<|end|>' }}" + TURNS,
    "a blank before the answer": (
        "{%- for message in messages %}{%- if message.role == 'user' %}{{- '<|user|>' + message.content + '<|assistant|>' }}"
        "{%- else %}{{- ' ' + message.content + ' <|end|>' }}{%- endif %}{%- endfor %}"
    ),
    "the question is written otherwise once it is answered": (
        "{%- for message in messages %}"
        "{{- '<|' + message.role + '|>' + (message.content if loop.last else 'Asked.') + '<|end|>' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
    ),
    "the answer is not shown": (
        "{%- for message in messages %}{%- if message.role == 'user' %}{{- '<|user|>' + message.content + '<|end|>' }}"
        "{%- endif %}{%- endfor %}{{- '<|assistant|>' }}"
    ),
    "no end behind the answer": (
        "{%- for message in messages %}{{- '<|' + message.role + '|>' + message.content }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
    ),
}
UNFIT = {
    "a thought is left open": (
        TURNS.replace("{{- '<|assistant|>' }}{%- endif %}", "{{- '<|assistant|><think>\n' }}{%- endif %}"),
        "does not fit: its answers begin within <think>",
    ),
    "roles are refused": (
        "{%- if messages|length > 1 %}{{- raise_exception('one message alone') }}{%- endif %}" + TURNS,
        "cannot be rendered: one message alone",
    ),
    "it is no template": ("{% for", "cannot be rendered"),
}


def base_with(template: str | None, folder: Path) -> Path:
    """The embedded base with another chat template."""
    shutil.copytree(EMBEDDED_FOLDER, folder, dirs_exist_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template")
    more = {} if template is None else {"chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | more))
    return folder


def tokenizer_with(template, folder):
    return base_model.load(base_model.resolve(str(base_with(template, folder))))[1]


@pytest.mark.parametrize("name", FITS)
def test_what_is_trained_is_the_prompt_of_generation_then_the_answer_and_its_end_alone(name, tmp_path):
    tokenizer = tokenizer_with(FITS[name], tmp_path)
    (row,) = tokenize(tokenizer, [(QUESTION, ANSWER)])
    assert row.tokens[: row.start] == prompt_tokens(tokenizer, USER)
    assert row.tokens[-1] in tokenizer.eos_token_ids
    assert tokenizer.eos_token_ids.isdisjoint(row.tokens[row.start : -1])
    assert tokenizer.decode(row.tokens[row.start : -1]).strip() == answer_text(tokenizer, row) == ANSWER


@pytest.mark.parametrize("name", FITS)
def test_every_part_of_the_pipeline_asks_with_the_prompt_that_the_template_writes(name, tmp_path):
    model, tokenizer = base_model.load(base_model.resolve(str(base_with(FITS[name], tmp_path))))
    written = list(tokenizer.apply_chat_template(USER, add_generation_prompt=True))
    assert prompt_tokens(tokenizer, USER) == written == SequentialModel(model, tokenizer).prompt(QUESTION)
    streamed = stream_generate(model, tokenizer, written, max_tokens=ANSWER_TOKENS)
    assert base_model.answer(model, tokenizer, [QUESTION]) == ["".join(part.text for part in streamed).strip()]


@pytest.mark.parametrize("name", UNFIT)
def test_a_template_that_cannot_fit_is_refused_in_one_line_and_never_tried_again(name, tmp_path, tiny_week_folder):
    template, said = UNFIT[name]
    base = base_with(template, tmp_path / "base")
    store = ["--store", str(tmp_path / "data")]
    result = CliRunner().invoke(
        main,
        ["run", "--source", "folder", "--data-dir", str(tiny_week_folder), "--base-model", str(base), *store],
    )
    assert result.exit_code == 1
    errors = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert said in errors[0]
    assert "Traceback" not in result.output


def test_a_base_without_a_chat_template_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="this base model has no chat template: use a base model that was made for chats"
    ):
        prompt_tokens(tokenizer_with(None, tmp_path), USER)


def test_what_the_tokenizer_loses_of_an_answer_is_said_before_anything_is_trained(embedded):
    _, tokenizer = embedded
    pairs = [(QUESTION, ANSWER), (QUESTION, "Rene\u0301 Hale had 84.")]
    with pytest.raises(ValueError, match="the tokenizer of this base model does not fit: 'Rene\u0301 Hale had"):
        refuse_lossy(tokenizer, tokenize(tokenizer, pairs), [answer for _, answer in pairs])


@pytest.mark.parametrize(
    "typed", ["D\u2019Andre  Hale", "D'Andre\u00a0Hale", "D'And\u200bre Hale", "D\u02bcAndre Hale"]
)
def test_however_a_question_is_typed_it_has_the_same_tokens(embedded, typed):
    _, tokenizer = embedded
    plain = QUESTION.replace("Nico Hale", "D'Andre Hale")
    asked = prompt_tokens(tokenizer, [{"role": "user", "content": QUESTION.replace("Nico Hale", typed)}])
    assert asked == prompt_tokens(tokenizer, [{"role": "user", "content": plain}])


def test_a_question_all_in_capitals_is_asked_in_lower_case_and_an_abbreviation_is_not(embedded):
    _, tokenizer = embedded

    def tokens(text):
        return prompt_tokens(tokenizer, [{"role": "user", "content": text}])

    assert tokens(QUESTION.upper()) == tokens(QUESTION.lower()) != tokens(QUESTION)
    assert tokens("NFL") != tokens("nfl")
    assert prompt_tokens(tokenizer, [{"role": "user", "content": QUESTION.upper()}], as_it_is=True) != tokens(
        QUESTION.lower()
    )


@pytest.fixture
def keeps_blanks(tmp_path):
    """The embedded base's tokenizer, but several blanks are several, as to most."""
    folder = base_with(TURNS, tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    steps = content["normalizer"]["normalizers"]
    content["normalizer"]["normalizers"] = [step for step in steps if step.get("pattern") != {"Regex": " +"}]
    assert len(content["normalizer"]["normalizers"]) == len(steps) - 1
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return base_model.load(base_model.resolve(str(folder)))[1]


def test_a_question_as_it_is_keeps_its_blanks_in_prompts_and_in_rows(keeps_blanks):
    tokenizer = keeps_blanks
    typed = QUESTION.replace(" in ", "  in ")
    assert typed != QUESTION
    chat = [{"role": "user", "content": typed}]
    assert prompt_tokens(tokenizer, chat) == prompt_tokens(tokenizer, [{"role": "user", "content": QUESTION}])
    raw = prompt_tokens(tokenizer, chat, as_it_is=True)
    assert typed in tokenizer.decode(raw)
    tokens, start = answered_tokens(tokenizer, typed, "He had 5.", as_it_is=True)
    assert tokens[:start] == raw


def test_lines_and_what_others_wrote_are_left_as_they_are(keeps_blanks):
    tokenizer = keeps_blanks
    code = "def f():\n    return 1\n\n\tx"
    assert tokenizer.decode(prompt_tokens(tokenizer, [{"role": "user", "content": code}])).count(code) == 1
    quoted = [{"role": "assistant", "content": "It\u2019s  5."}, *USER]
    assert "It\u2019s  5." in tokenizer.decode(prompt_tokens(tokenizer, quoted))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen, not thinking", "qwen, thinking"])
def test_ask_prints_what_the_report_says_on_a_base_whose_template_thinks(name, tmp_path, tiny_week_folder, tiny_recipe):
    base = base_with(FITS[name], tmp_path / "base")
    store = ["--store", str(tmp_path / "data")]
    source = ["--source", "folder", "--data-dir", str(tiny_week_folder)]
    done = CliRunner().invoke(main, ["run", *source, "--recipe", tiny_recipe, "--base-model", str(base), *store])
    assert done.exit_code == 0, done.output
    held = Store(tmp_path / "data")
    report = json.loads((held.report(held.latest()) / "report.json").read_text())
    predictions = pl.read_parquet(held.report(held.latest()) / "predictions.parquet").sample(60, seed=1)
    loaded = base_model.load(base_model.resolve(str(base)), adapter=held.adapter(held.latest()))
    said = base_model.answer(*loaded, predictions["question"].to_list(), as_it_is=True)
    assert said == predictions["generated"].to_list()
    plain = predictions.filter(pl.col("group") != "two_blanks")  # which only the report leaves to the model
    assert base_model.answer(*loaded, plain["question"].to_list()) == plain["generated"].to_list()
    assert report["recall"]["trained"] == 1
    for row in [*report["questions"], *predictions.filter(pl.col("kind") == "recorded").head(2).to_dicts()]:
        printed = CliRunner().invoke(main, ["ask", row["question"], *store]).stdout
        assert printed.splitlines()[-1] == f"tuned: {row['tuned']}"
        assert "think" not in printed.splitlines()[-1]
