import pytest
import yaml
from click.testing import CliRunner
from mlx_lm.lora import CONFIG_DEFAULTS

from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.recipes.recipe import RECIPES_FOLDER, SECTIONS, Recipe, load_recipe, recipe_names

GOOD = """\
base_model: embedded
lora: {rank: 8, scale: 4.0}
optimizer: {learning_rate: 1.0e-3}
curriculum: {batch_rows: 4, max_epochs: 2}
"""


def in_section(section, text):
    return f"base_model: embedded\n{section}: {{{text}}}\n"


def written(tmp_path, text):
    file = tmp_path / "own.yaml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads(name):
    assert load_recipe(name).base_model


def test_the_embedded_recipe_is_shipped():
    assert "embedded" in recipe_names()
    assert load_recipe("embedded").base_model == "embedded"


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_says_what_it_is_for_and_holds_only_what_differs_from_the_defaults(name):
    text = (RECIPES_FOLDER / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    defaults = Recipe(base_model="another").values()
    written_down = yaml.safe_load(text)
    written_down |= {key: value for section in SECTIONS for key, value in written_down.pop(section, {}).items()}
    assert [key for key, value in written_down.items() if value == defaults[key]] == []


def test_every_key_says_what_it_is():
    sections = [Recipe, *SECTIONS.values()]
    assert all(field.description for section in sections for field in section.model_fields.values())


def test_no_key_stands_in_two_sections():
    keys = [key for section in [Recipe, *SECTIONS.values()] for key in section.model_fields]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("old", "new"),
    [("rank: 8", "lora.rank"), ("learning_rate: 0.1", "optimizer.learning_rate"), ("max_lost: 0.1", "gates.max_lost")],
)
def test_a_key_of_before_there_were_sections_is_answered_with_where_it_stands_now(tmp_path, old, new):
    with pytest.raises(ValueError) as caught:
        load_recipe(written(tmp_path, f"base_model: embedded\n{old}\n"))
    assert f"no such key (given: {old.split()[1]}); it is {new}: keys stand in sections" in str(caught.value)


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_that_is_shown_is_one_to_begin_ones_own_with(name, tmp_path):
    shown = CliRunner().invoke(main, ["recipe", "show", name]).output
    assert load_recipe(written(tmp_path, shown)) == load_recipe(name)
    assert all("  # " in line for line in shown.splitlines())


def test_recipes_are_listed_with_what_they_are_for():
    lines = CliRunner().invoke(main, ["recipe", "list"]).output.splitlines()
    assert [line.split()[0] for line in lines] == recipe_names()
    assert all(len(line.split()) > 5 for line in lines)


def test_the_original_recipe_has_the_defaults_of_mlx_lm_but_for_what_its_file_explains():
    recipe, defaults = load_recipe("original"), CONFIG_DEFAULTS
    assert {"rank": recipe.lora.rank, "dropout": recipe.lora.dropout, "scale": recipe.lora.scale} == defaults[
        "lora_parameters"
    ]
    found = (
        recipe.lora.fine_tune_type,
        recipe.lora.num_layers,
        recipe.curriculum.batch_rows,
        recipe.curriculum.max_steps,
        recipe.optimizer.learning_rate,
        recipe.seed,
    )
    names = ("fine_tune_type", "num_layers", "batch_size", "iters", "learning_rate", "seed")
    assert found == tuple(defaults[name] for name in names)
    assert (recipe.method, recipe.optimizer.schedule, recipe.optimizer.warmup_steps) == ("mlx_lm", "constant", 0)
    assert (defaults["lr_schedule"], defaults["mask_prompt"], defaults["optimizer"]) == (None, False, "adam")
    assert (recipe.lora.modules, recipe.optimizer.weight_decay) == (["self_attn.qkv_proj"], 0)


def test_a_recipe_of_ones_own_is_read_with_defaults(tmp_path):
    recipe = load_recipe(written(tmp_path, GOOD))
    assert (recipe.lora.rank, recipe.lora.num_layers, recipe.lora.fine_tune_type) == (8, -1, "lora")
    assert (recipe.method, recipe.optimizer.schedule, recipe.optimizer.weight_decay) == ("recall", "wsd", 0)


def test_a_number_without_a_point_before_its_exponent_is_one(tmp_path):
    assert load_recipe(written(tmp_path, GOOD.replace("1.0e-3", "1e-3"))).optimizer.learning_rate == 0.001


@pytest.mark.parametrize(
    ("text", "key", "given"),
    [
        (GOOD + "rnak: 8\n", "rnak", "8"),
        (in_section("lora", "rank: many"), "lora.rank", "'many'"),
        (in_section("lora", "rank: 0"), "lora.rank", "0"),
        (in_section("optimizer", "learning_rate: 0"), "optimizer.learning_rate", "0"),
        (in_section("lora", "rank: true"), "lora.rank", "True"),
        (in_section("lora", "rank: '8'"), "lora.rank", "'8'"),
        (in_section("lora", "scale: yes"), "lora.scale", "True"),
        (in_section("lora", "scale: .inf"), "lora.scale", "inf"),
        (in_section("lora", "fine_tune_type: fool"), "lora.fine_tune_type", "'fool'"),
        (in_section("lora", "modules: [1]"), "lora.modules.0", "1"),
        (in_section("lora", "modules: []"), "lora.modules", "[]"),
        (in_section("lora", "fine_tune_type: full, modules: [mlp.down_proj]"), "lora.modules", "['mlp.down_proj']"),
        (in_section("lora", "num_layers: 0"), "lora.num_layers", "0"),
        (in_section("optimizer", "weight_decay: 1"), "optimizer.weight_decay", "1"),
        (in_section("optimizer", "schedule: falling"), "optimizer.schedule", "'falling'"),
        (in_section("gates", "advisory: [rank]"), "gates.advisory", "['rank']"),
        (in_section("gates", "floors: {min_refused: 0.5}"), "gates.floors", "{'min_refused': 0.5}"),
        (GOOD + "method: mlx_lm\n", "optimizer.schedule", "'wsd'"),
        (GOOD + "warm_start: 1\n", "warm_start", "1"),
        (GOOD + "seed: -1\n", "seed", "-1"),
        (GOOD + "7: 8\n", "7", "8"),
        ("base_model: embedded\nlora: 8\n", "lora", "8"),
    ],
)
def test_a_bad_value_is_named_with_file_and_key(tmp_path, text, key, given):
    with pytest.raises(ValueError, match=r"own\.yaml") as caught:
        load_recipe(written(tmp_path, text))
    assert f": {key}: " in str(caught.value)
    assert f"(given: {given})" in str(caught.value)


@pytest.mark.parametrize(
    ("written_key", "said"),
    [
        ("rnak", "did you mean lora.rank?"),
        ("learning-rate", "did you mean optimizer.learning_rate?"),
        ("Batch_Rows", "did you mean curriculum.batch_rows?"),
        ("optimiser", "did you mean optimizer?"),
        ("wd", "use lora.fine_tune_type, lora.rank, "),
    ],
)
def test_an_unknown_key_is_answered_with_the_one_that_was_meant(tmp_path, written_key, said):
    with pytest.raises(ValueError) as caught:
        load_recipe(written(tmp_path, GOOD + f"{written_key}: 8\n"))
    assert f"own.yaml: {written_key}: no such key (given: 8); {said}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        (in_section("lora", "fine_tune_type: fool"), "'lora', 'dora' or 'full'"),
        (GOOD + "method: mlx_lm\n", "'constant', 'linear' or 'cosine', since method mlx_lm measures no recall"),
        (in_section("lora", "rank: 2000"), "less than or equal to 1024"),
        (in_section("lora", "num_layers: 0"), "at least 1, or -1 for all layers"),
        (
            in_section("curriculum", "elsewhere_share: 0.5, other_stats_share: 0.4"),
            "at most 0.3: the rest of 0.8 is elsewhere_share's",
        ),
    ],
)
def test_a_bad_value_is_answered_with_what_may_be_written(tmp_path, text, mend):
    with pytest.raises(ValueError) as caught:
        load_recipe(written(tmp_path, text))
    assert mend in str(caught.value)
    assert "Value error" not in str(caught.value)


def test_an_unknown_key_of_a_section_is_answered_with_the_one_that_was_meant(tmp_path):
    with pytest.raises(ValueError) as caught:
        load_recipe(written(tmp_path, in_section("lora", "rnak: 8")))
    assert "own.yaml: lora.rnak: no such key (given: 8); did you mean lora.rank?" in str(caught.value)
    with pytest.raises(ValueError) as caught:
        load_recipe(written(tmp_path, in_section("lora", "batch_rows: 8")))
    assert "lora.batch_rows: no such key (given: 8); it is curriculum.batch_rows" in str(caught.value)


def test_a_missing_key_is_named_with_its_file(tmp_path):
    with pytest.raises(ValueError, match=r"own\.yaml: base_model: Field required$"):
        load_recipe(written(tmp_path, GOOD.replace("base_model: embedded\n", "")))


@pytest.mark.parametrize(
    ("text", "problem"), [("rank: [1", "not valid YAML"), ("- rank\n", "expected keys"), ("", "expected keys")]
)
def test_a_file_that_holds_no_keys_and_values_is_named(tmp_path, text, problem):
    with pytest.raises(ValueError, match=rf"own\.yaml: {problem}"):
        load_recipe(written(tmp_path, text))


@pytest.mark.parametrize("name", ["nope", "folder/nope.yaml"])
def test_a_recipe_that_is_not_there_is_named_and_the_shipped_ones_are_offered(name):
    with pytest.raises(ValueError, match="no such recipe; use embedded, ") as caught:
        load_recipe(name)
    assert repr(name) in str(caught.value)
