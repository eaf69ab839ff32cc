"""Loading a config: defaults, files, overrides, named errors."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from msgspec import to_builtins

from embedmill.base.config import RunConfig
from embedmill.base.configfile import load_config, parse_config
from embedmill.base.errors import ConfigError


def config_of(values: dict[str, Any]) -> RunConfig:
    """A config from options spelt `table.key`."""
    return load_config(None, [f"{key}={_toml(value)}" for key, value in values.items()])


def write_toml(folder: Path, text: str) -> Path:
    path = folder / "job.toml"
    path.write_text(text, "utf-8")
    return path


def test_without_a_file_the_defaults_hold() -> None:
    config = load_config(None)
    assert config == RunConfig()
    assert (config.columns.text, config.columns.id, config.engine.provider) == ("text", None, "auto")


def test_an_empty_file_says_the_defaults(tmp_path: Path) -> None:
    assert load_config(write_toml(tmp_path, "")) == RunConfig()


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = write_toml(tmp_path, 'model = "mine"\n[input]\npaths = ["a", "b"]\n[shard]\nrows = 7\n')
    config = load_config(path)
    assert (config.model, config.input.paths, config.shard.rows) == ("mine", ("a", "b"), 7)
    assert (config.shard.text_bytes, config.text) == (RunConfig().shard.text_bytes, RunConfig().text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle = 'x'", "unknown key `modle`; did you mean `model`?"),
        ("[shards]\nrows = 1", "unknown key `shards`; did you mean `shard`?"),
        ("[shard]\nrow = 1", "unknown key `shard.row`; did you mean `shard.rows`?"),
        (
            "[limits]\nzzz = 1",
            "unknown key `limits.zzz`; known here: carried_bytes, expansion, id_bytes, record_bytes, text_bytes,"
            " window_log",
        ),
    ],
)
def test_an_unknown_key_is_told_the_nearest_one(tmp_path: Path, text: str, message: str) -> None:
    path = write_toml(tmp_path, text)
    with pytest.raises(ConfigError) as info:
        load_config(path)
    assert str(info.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = 5", "`model`: expected `str`, got `int`"),
        ("[shard]\nrows = 'many'", "`shard.rows`: expected `int`, got `str`"),
        ("[shard]\nrows = 1.5", "`shard.rows`: expected `int`, got `float`"),
        ("[shard]\nrows = true", "`shard.rows`: expected `int`, got `bool`"),
        ("[shard]\nrows = 0", "`shard.rows`: expected `int` >= 1"),
        ("[engine]\nstreams = -1", "`engine.streams`: expected `int` >= 1"),
        ("[text]\nmax_tokens = 2", "`text.max_tokens`: expected `int` >= 3"),
        ("[input]\npaths = 'a'", "`input.paths`: expected `array`, got `str`"),
        ("[input]\npaths = ['a', 5]", "`input.paths[1]`: expected `str`, got `int`"),
        ("[input]\ncsv_delimiter = ', '", "`input.csv_delimiter`: expected `str` of length <= 1"),
        ("[rows]\nnull_text = 'embed'", "`rows.null_text`: invalid enum value 'embed'"),
        ("[columns]\ncarry = ['a']\ntypes = {a = 'date'}", "`columns.types[...]`: invalid enum value 'date'"),
        ("shard = 5", "`shard` is a table; write [shard] and its keys below"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    path = write_toml(tmp_path, text)
    with pytest.raises(ConfigError) as info:
        load_config(path)
    assert str(info.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text.prompt": "a", "text.prompt_name": "b"}, "`text.prompt` and `text.prompt_name` are both set"),
        ({"text.chunk_tokens": 10, "text.chunk_overlap": 10}, "`text.chunk_overlap` must be smaller"),
        ({"text.chunk_overlap": 10}, "`text.chunk_overlap` needs `text.chunk_tokens`"),
        ({"columns.carry": ["url", "embedding"]}, "`columns.carry` names 'embedding', which is an output column"),
        ({"columns.carry": ["id"]}, "`columns.carry` names 'id', which is an output column"),
        ({"columns.carry": ["url", "url"]}, "`columns.carry` names a column twice"),
        ({"columns.types": {"url": "int64"}}, "`columns.types` names 'url', which is not in `columns.carry`"),
    ],
    ids=str,
)
def test_options_that_contradict_each_other_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as info:
        config_of(values)
    assert message in str(info.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[shard\nrows = 1", "not valid TOML: "),
        (b"model = 'a'\nmodel = 'b'", "not valid TOML: "),
        (b"model = '\xff'", "not UTF-8"),
    ],
    ids=repr,
)
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "job.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"job\.toml: {message}"):
        load_config(tmp_path / "job.toml")


def test_a_missing_file_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"job\.toml: no such config file; copy configs/default\.toml"):
        load_config(tmp_path / "job.toml")


def test_a_folder_is_no_config_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: "):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("shard.rows=7", "shard.rows", 7),
        (" shard.rows = 7 ", "shard.rows", 7),
        ("columns.text=body", "columns.text", "body"),
        ('columns.text="body"', "columns.text", "body"),
        ("text.prompt=query: a = b", "text.prompt", "query: a = b"),
        ("text.prompt=", "text.prompt", ""),
        ("input.paths=['a', 'b']", "input.paths", ("a", "b")),
        ("columns.carry=[]", "columns.carry", ()),
        ("output.path=C:\\out", "output.path", "C:\\out"),
        ("model=org/name", "model", "org/name"),
    ],
)
def test_an_override_says_one_option(override: str, key: str, expected: Any) -> None:
    value: Any = load_config(None, [override])
    for part in key.split("."):
        value = getattr(value, part)
    assert value == expected


def test_an_override_goes_over_the_file_and_the_last_one_holds(tmp_path: Path) -> None:
    path = write_toml(tmp_path, "[shard]\nrows = 1\ntext_bytes = 10\n")
    shard = load_config(path, ["shard.rows=2", "shard.rows=3"]).shard
    assert (shard.rows, shard.text_bytes) == (3, 10)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["shard.rows"], "--set shard.rows: expected KEY=VALUE"),
        (["=5"], "--set =5: expected KEY=VALUE"),
        (["model=a", "model.name=b"], "--set model.name=b: `model` is a value, not a table"),
        (["shard.row=5"], "unknown key `shard.row`; did you mean `shard.rows`?"),
        (["shard.rows=many"], "`shard.rows`: expected `int`, got `str`"),
        (["shard.rows.most=5"], "`shard.rows`: expected `int`, got `object`"),
        (["shard=5"], "`shard` is a table"),
        (["output.path='a\x00b'"], "a path contains a NUL character"),
        (["output.path="], "`output.path` is empty; name a folder"),
        (["output.path=  "], "`output.path` is empty"),
        (["output.path=s3://bucket/out"], "is no local folder; write to one"),
        (['input.paths=["a\\u0000"]'], "a path contains a NUL character"),
    ],
    ids=str,
)
def test_a_wrong_override_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as info:
        load_config(None, overrides)
    assert message in str(info.value)


def test_the_place_of_a_wrong_value_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^the service's request: `model`: expected `str`"):
        parse_config({"model": 5}, place="the service's request")


DEFAULT = Path(__file__).parents[2] / "configs/default.toml"
# A key in a comment, as `# id = "id"`.
COMMENTED = re.compile(r"^# (\w+ = .+)$", re.MULTILINE)


def test_the_default_file_has_every_key() -> None:
    shown = tomllib.loads(COMMENTED.sub(r"\1", DEFAULT.read_text("utf-8")))
    assert keys_of(shown) == keys_of(to_builtins(RunConfig()))


def test_the_default_file_says_where_a_value_is_not_the_default() -> None:
    shown = to_builtins(load_config(DEFAULT))
    defaults = to_builtins(RunConfig())
    assert {
        f"{table}.{key}"
        for table, keys in shown.items()
        if isinstance(keys, dict)
        for key, value in keys.items()
        if value != defaults[table][key]
    } == {"input.paths", "columns.carry", "output.path"}


def test_keys_in_comments_of_the_default_file_can_be_used() -> None:
    for table, keys in tomllib.loads(COMMENTED.sub(r"\1", DEFAULT.read_text("utf-8"))).items():
        for key, value in keys.items() if isinstance(keys, dict) else ():
            assert load_config(None, [f"{table}.{key}={_toml(value)}"])


def keys_of(values: dict[str, Any]) -> dict[str, set[str]]:
    """The keys by table; those of a table that is a value itself are its user's."""
    return {name: set(value) if isinstance(value, dict) else set() for name, value in values.items()}


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {json.dumps(entry)}" for key, entry in value.items()) + "}"
    return json.dumps(value)


@pytest.mark.parametrize("name", ["2", "true", "1e5", "2020-01-01", '"2"'])
def test_a_column_may_have_a_name_that_is_a_value_elsewhere(name: str) -> None:
    assert load_config(None, [f"columns.text={name}"]).columns.text == name.strip('"')
    assert load_config(None, [f"columns.id={name}"]).columns.id == name.strip('"')


def test_a_mark_at_the_beginning_of_a_file_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_bytes(b"\xef\xbb\xbf[shard]\r\nrows = 7\r\n")
    assert load_config(path).shard.rows == 7


@pytest.mark.parametrize("text", [r'paths = ["C:\corpus"]', r'paths = ["C:\users\me"]', r'paths = ["C:\xyz"]'])
def test_backslashes_in_double_quotes_are_told_with_the_remedy(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"not valid TOML: .*; write Windows paths in single quotes: 'C:\\corpus'"):
        load_config(write_toml(tmp_path, f"[input]\n{text}\n"))


@pytest.mark.parametrize(
    "text",
    [
        r'[input]{}paths = ["C:\temp\new.jsonl"]',
        r'[output]{}path = "D:\new\fast"',
        r'[input]{}paths = ["\\\\host\new"]',
    ],
)
def test_escapes_that_are_valid_by_chance_are_told_too(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="a control character where a backslash and a letter were meant"):
        load_config(write_toml(tmp_path, text.format("\n")))


@pytest.mark.parametrize("text", [r"paths = ['C:\temp\new.jsonl']", r'paths = ["C:\\temp\\new.jsonl"]'])
def test_paths_in_single_quotes_or_with_two_backslashes_are_taken(tmp_path: Path, text: str) -> None:
    config = load_config(write_toml(tmp_path, f"[input]\n{text}\n"))
    assert list(config.input.paths) == [r"C:\temp\new.jsonl"]


@pytest.mark.parametrize(
    "override",
    ["columns.carry=[url]", r'input.paths=["C:\x"]', "input.paths=[C:/a, C:/b]", "columns.carry_as={url = u}"],
)
def test_quotes_that_a_shell_took_are_told_with_the_remedy(override: str) -> None:
    with pytest.raises(ConfigError, match="the shell took its quotes; write single quotes within double"):
        load_config(None, [override])


def test_text_that_looks_like_a_list_is_text_where_text_is_wanted() -> None:
    config = load_config(None, ["columns.text=[a]", "output.path=[x", "text.prompt=[Query] "])
    assert (config.columns.text, config.output.path, config.text.prompt) == ("[a]", "[x", "[Query] ")


@pytest.mark.parametrize(
    ("override", "delimiter", "prompt"),
    [
        ("input.csv_delimiter=\t", "\t", ""),
        ("input.csv_delimiter= ", " ", ""),
        ('input.csv_delimiter = "\\t"', "\t", ""),
        ("text.prompt=query: ", "", "query: "),
        ("text.prompt= query: ", "", " query: "),
        ("text.prompt = query: ", "", "query: "),
        ("text.prompt = ' query: '", "", " query: "),
    ],
)
def test_spaces_of_a_value_are_its_own_and_those_around_the_sign_are_not(
    override: str, delimiter: str, prompt: str
) -> None:
    config = load_config(None, [override])
    assert (config.input.csv_delimiter or "", config.text.prompt or "") == (delimiter, prompt)


@pytest.mark.parametrize("names", [{"a": "EMBEDDING"}, {"a": "Id"}, {"a": "b", "c": "B"}])
def test_output_columns_that_differ_in_case_alone_are_refused(names: dict[str, str]) -> None:
    columns = {"carry": list(names), "carry_as": names}
    with pytest.raises(ConfigError, match=r"which is an output column|gives two columns the name"):
        parse_config({"columns": columns}, place="test")


def test_what_is_far_too_long_for_a_config_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "corpus.jsonl").open("wb") as file:
        file.truncate(1 << 36)
    with pytest.raises(ConfigError, match="more than 1 MiB; name the config file, not the input"):
        load_config(tmp_path / "corpus.jsonl")
