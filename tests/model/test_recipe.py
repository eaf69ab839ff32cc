"""The recipe of a sentence-transformers folder is read, and nothing is assumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedmill.base.errors import ConfigError, ModelError
from embedmill.model.recipe import Dense, read_recipe
from tests.support.systems import at
from tests.support.tiny_model import bert_config, write_json

TRANSFORMER = {"type": "sentence_transformers.models.Transformer", "path": ""}
POOLING = {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}
NORMALIZE = {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"}
DENSE = {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}
MEAN = {"pooling_mode_mean_tokens": True}


def write_folder(folder: Path, files: dict[str, Any]) -> Path:
    """Write a model folder with mean pooling and 128 tokens; `files` override."""
    plain: dict[str, Any] = {
        "config.json": bert_config() | {"max_position_embeddings": 512},
        "modules.json": [TRANSFORMER, POOLING],
        "1_Pooling/config.json": MEAN,
        "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": False},
    }
    for name, values in (plain | files).items():
        if values is not None:
            write_json(folder / name, values)
    return folder


@pytest.mark.parametrize("limit", ["a", -5, 0, 2.5, [128]])
def test_a_length_that_is_no_number_of_tokens_is_refused(tmp_path: Path, limit: object) -> None:
    with pytest.raises(ModelError, match=r"max_seq_length is .* not a token count"):
        read_recipe(write_folder(tmp_path, {"sentence_bert_config.json": {"max_seq_length": limit}}))


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_mean_tokens": True}, ("mean",)),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode_max_tokens": True}, ("max",)),
        ({"pooling_mode_lasttoken": True}, ("last",)),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ("mean_sqrt_len",)),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean")),
        ({"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "include_prompt": True}, ("mean",)),
        ({"pooling_mode": "mean"}, ("mean",)),
        ({"pooling_mode": "cls"}, ("cls",)),
        ({"pooling_mode": "max"}, ("max",)),
        ({"pooling_mode": "lasttoken"}, ("last",)),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, ("mean_sqrt_len",)),
        ({"pooling_mode": ["mean", "cls"]}, ("mean", "cls")),
        ({"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, ("cls",)),
    ],
    ids=str,
)
def test_pooling_is_read_in_both_spellings(tmp_path: Path, pooling: dict[str, Any], expected: tuple[str, ...]) -> None:
    folder = write_folder(tmp_path, {"1_Pooling/config.json": pooling})
    assert read_recipe(folder).pooling == expected


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_weightedmean_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_weightedmean_tokens": True},
        {"pooling_mode": "weightedmean"},
        {"pooling_mode": ["mean", "weightedmean"]},
        {"pooling_mode": 3},
        {"pooling_mode_mean_tokens": False},
        {},
        {"pooling_mode_mean_tokens": True, "include_prompt": False},
    ],
    ids=str,
)
def test_a_pooling_that_cannot_be_done_is_refused(tmp_path: Path, pooling: dict[str, Any]) -> None:
    folder = write_folder(tmp_path, {"1_Pooling/config.json": pooling})
    with pytest.raises(ModelError, match=at("1_Pooling/config.json") + ": .* not supported"):
        read_recipe(folder)


def test_normalisation_is_on_exactly_where_a_normalize_module_stands(tmp_path: Path) -> None:
    with_it = write_folder(tmp_path / "with", {"modules.json": [TRANSFORMER, POOLING, NORMALIZE]})
    without = write_folder(tmp_path / "without", {"modules.json": [TRANSFORMER, POOLING]})
    assert read_recipe(with_it).normalize
    assert not read_recipe(without).normalize


def test_modules_are_known_by_the_last_part_of_their_type(tmp_path: Path) -> None:
    modules = [
        {"type": "sentence_transformers.base.modules.transformer.Transformer", "path": ""},
        {"type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling", "path": "1_Pooling"},
        {"type": "sentence_transformers.base.modules.normalize.Normalize", "path": "2_Normalize"},
    ]
    recipe = read_recipe(write_folder(tmp_path, {"modules.json": modules}))
    assert (recipe.pooling, recipe.normalize) == (("mean",), True)


@pytest.mark.parametrize(
    ("config", "activation"),
    [
        ({}, "Tanh"),
        ({"activation_function": "torch.nn.modules.activation.Tanh"}, "Tanh"),
        ({"activation_function": "torch.nn.modules.linear.Identity"}, ""),
        ({"activation_function": "torch.nn.modules.activation.ReLU"}, "Relu"),
    ],
    ids=str,
)
def test_a_dense_layer_is_read_with_its_activation(tmp_path: Path, config: dict[str, Any], activation: str) -> None:
    files = {"modules.json": [TRANSFORMER, POOLING, DENSE], "2_Dense/config.json": config}
    assert read_recipe(write_folder(tmp_path, files)).dense == (Dense(path="2_Dense", activation=activation),)


@pytest.mark.parametrize(
    "config",
    [
        {"activation_function": "torch.nn.modules.activation.GELU"},
        {"use_residual": True},
        {"module_input_name": "token_embeddings"},
        {"module_output_name": "dense_embedding"},
    ],
    ids=str,
)
def test_a_dense_layer_that_cannot_be_built_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    files = {"modules.json": [TRANSFORMER, POOLING, DENSE], "2_Dense/config.json": config}
    with pytest.raises(ModelError, match=r"2_Dense.* not supported"):
        read_recipe(write_folder(tmp_path, files))


@pytest.mark.parametrize(
    "modules",
    [
        [TRANSFORMER, POOLING, {"type": "sentence_transformers.models.LSTM", "path": "2_LSTM"}],
        [{"type": "sentence_transformers.models.WordEmbeddings", "path": ""}, POOLING],
        [TRANSFORMER, DENSE, POOLING],
        [TRANSFORMER, POOLING, NORMALIZE, DENSE],
        [TRANSFORMER, POOLING, POOLING],
        [TRANSFORMER],
        [],
        [{"path": ""}],
        {"type": "Transformer"},
        "Transformer",
    ],
    ids=["LSTM", "words", "dense first", "dense last", "two poolings", "no pooling", "none", "no type", "dict", "word"],
)
def test_modules_that_cannot_be_put_into_a_graph_are_refused(tmp_path: Path, modules: Any) -> None:
    folder = write_folder(tmp_path, {"modules.json": modules, "2_Dense/config.json": {}})
    with pytest.raises(ModelError, match=r"modules\.json"):
        read_recipe(folder)


@pytest.mark.parametrize("given", [{}, {"pooling": "cls"}, {"normalize": True}], ids=str)
def test_without_modules_json_pooling_and_normalisation_must_be_given(tmp_path: Path, given: dict[str, Any]) -> None:
    folder = write_folder(tmp_path, {"modules.json": None, "1_Pooling/config.json": None})
    with pytest.raises(ModelError, match=r"no modules\.json.*--pooling.*--normalize"):
        read_recipe(folder, **given)


def test_what_is_given_holds_where_modules_json_is_not_there(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"modules.json": None, "1_Pooling/config.json": None})
    recipe = read_recipe(folder, pooling="cls", normalize=False)
    assert (recipe.pooling, recipe.normalize, recipe.dense) == (("cls",), False, ())


def test_an_unknown_pooling_on_the_command_line_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"modules.json": None, "1_Pooling/config.json": None})
    with pytest.raises(ModelError, match=r"give both --pooling \(mean, cls, last, max"):
        read_recipe(folder, pooling="median", normalize=True)  # type: ignore[arg-type]  # a user's word


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"sentence_bert_config.json": {"max_seq_length": 128}}, 128),
        ({"sentence_bert_config.json": {"max_seq_length": 2048}}, 512),
        ({"sentence_bert_config.json": None, "tokenizer_config.json": {"model_max_length": 200}}, 200),
        ({"sentence_bert_config.json": None, "tokenizer_config.json": {"model_max_length": 1e30}}, 512),
        ({"sentence_bert_config.json": {"max_seq_length": None}, "tokenizer_config.json": {}}, 512),
        (
            {
                "sentence_bert_config.json": {"max_seq_length": 128},
                "config.json": {"model_type": "bert"},
            },
            128,
        ),
    ],
    ids=str,
)
def test_the_longest_text_is_the_stated_length_within_the_positions(
    tmp_path: Path, files: dict[str, Any], expected: int
) -> None:
    assert read_recipe(write_folder(tmp_path, files)).max_tokens == expected


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "camembert", "mpnet", "longformer"])
@pytest.mark.parametrize(("padding", "expected"), [(1, 512), (None, 512), (0, 513)])
def test_positions_that_begin_after_the_padding_id_hold_fewer_tokens(
    tmp_path: Path, kind: str, padding: int | None, expected: int
) -> None:
    config = {"model_type": kind, "max_position_embeddings": 514, "pad_token_id": padding}
    files = {"config.json": bert_config() | config, "sentence_bert_config.json": {"max_seq_length": 514}}
    assert read_recipe(write_folder(tmp_path, files)).max_tokens == expected


def test_a_length_above_the_positions_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    files = {"config.json": bert_config() | config, "sentence_bert_config.json": {"max_seq_length": 514}}
    read_recipe(write_folder(tmp_path, files))
    assert "max_seq_length is 514, but the model has positions for 512 tokens" in caplog.text


def test_no_position_for_any_token_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "roberta", "max_position_embeddings": 2, "pad_token_id": 1}
    with pytest.raises(ModelError, match=r"max_position_embeddings is 2, but the first position is 2; correct it"):
        read_recipe(write_folder(tmp_path, {"config.json": bert_config() | config}))


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "camembert", "distilbert", "albert", "xlnet"])
def test_the_length_is_read_from_the_config_of_older_models(tmp_path: Path, kind: str) -> None:
    files = {"sentence_bert_config.json": None, f"sentence_{kind}_config.json": {"max_seq_length": 100}}
    assert read_recipe(write_folder(tmp_path, files)).max_tokens == 100


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pooling": "cls"}, "mean pooling, not normalised"),
        ({"normalize": True}, "mean pooling, not normalised"),
        ({"pooling": "mean", "normalize": True}, "mean pooling, not normalised"),
    ],
    ids=str,
)
def test_options_that_contradict_modules_json_are_refused(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"modules\.json states {said}; --pooling and --normalize are for folders"):
        read_recipe(write_folder(tmp_path, {}), **given)


def test_options_that_say_the_same_as_modules_json_are_taken(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {})
    assert read_recipe(folder, pooling="mean", normalize=False) == read_recipe(folder)


def test_a_model_of_an_older_layout_has_its_encoder_in_a_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"modules.json": [TRANSFORMER | {"path": "0_Transformer"}, POOLING]})
    (folder / "0_Transformer").mkdir()
    for name in ("config.json", "sentence_bert_config.json"):
        (folder / name).rename(folder / "0_Transformer" / name)
    assert read_recipe(folder).max_tokens == 128


def test_a_model_that_states_no_length_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"sentence_bert_config.json": None, "config.json": {"model_type": "bert"}})
    with pytest.raises(ModelError, match="no maximum length is stated"):
        read_recipe(folder)


def test_prompts_and_the_default_among_them_are_read(tmp_path: Path) -> None:
    named = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query"}
    recipe = read_recipe(write_folder(tmp_path, {"config_sentence_transformers.json": named}))
    assert (recipe.prompts, recipe.default_prompt) == (named["prompts"], "query: ")


@pytest.mark.parametrize("named", [None, {}, {"prompts": {}}, {"prompts": None, "default_prompt_name": None}], ids=str)
def test_a_model_without_prompts_has_an_empty_one(tmp_path: Path, named: dict[str, Any] | None) -> None:
    recipe = read_recipe(write_folder(tmp_path, {"config_sentence_transformers.json": named}))
    assert (recipe.prompts, recipe.default_prompt) == ({}, "")


@pytest.mark.parametrize(
    "named",
    [{"prompts": {"query": "q: "}, "default_prompt_name": "passage"}, {"prompts": ["query: "]}],
    ids=["an unknown default", "a list"],
)
def test_prompts_that_make_no_sense_are_refused(tmp_path: Path, named: dict[str, Any]) -> None:
    folder = write_folder(tmp_path, {"config_sentence_transformers.json": named})
    with pytest.raises(ModelError, match=r"config_sentence_transformers\.json.*prompt"):
        read_recipe(folder)


def test_lower_casing_is_read(tmp_path: Path) -> None:
    files = {"sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": True}}
    assert read_recipe(write_folder(tmp_path, files)).lowercase


@pytest.mark.parametrize("missing", ["config.json", "1_Pooling/config.json"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    folder = write_folder(tmp_path, {missing: None})
    with pytest.raises(ModelError, match=at(missing) + " is missing"):
        read_recipe(folder)


@pytest.mark.parametrize("damaged", ["config.json", "1_Pooling/config.json", "sentence_bert_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"], ids=["empty", "half", "a list", "no UTF-8"])
def test_a_damaged_json_file_is_named(tmp_path: Path, damaged: str, content: bytes) -> None:
    folder = write_folder(tmp_path, {})
    (folder / damaged).write_bytes(content)
    with pytest.raises(ModelError, match=at(damaged)):
        read_recipe(folder)
