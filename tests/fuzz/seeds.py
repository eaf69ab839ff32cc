"""What the fuzzers begin with: inputs of every kind that the readers tell apart, by target."""

from __future__ import annotations

from pathlib import Path

_ROW = b'{"id": "a", "text": "the river", "n": 7, "s": "stone"}\n'

JSONL = {
    "a row": _ROW,
    "rows and blank lines": _ROW + b"\n \n" + b'{"id": 2, "text": ""}\r\n' + _ROW,
    "no line end": _ROW[:-1],
    "a byte order mark": b"\xef\xbb\xbf" + _ROW,
    "escapes": b'{"id": "\\u00e9\\n", "text": "\\ud83c\\udf0a \\" \\\\ \\u0000"}\n',
    "a lone surrogate": b'{"id": "a", "text": "\\ud800"}\n',
    "a surrogate in UTF-8": b'{"id": "a", "text": "\xed\xa0\x80"}\n',
    "a cut character": b'{"id": "a", "text": "\xe2\x82"}\n',
    "keys given twice": b'{"id": "a", "id": "b", "text": "a", "text": 5}\n',
    "every type": b'{"id": 1.5, "text": null, "n": true, "s": {"a": [1, -2e300, null, false, {}]}}\n',
    "numbers": b'{"id": -9223372036854775809, "text": "a", "n": 1e400, "s": 123456789012345678901234567890}\n',
    "no JSON numbers": b'{"id": NaN, "text": -Infinity, "n": 01, "s": 1.}\n',
    "nested": b'{"id": "a", "text": "a", "x": ' + b"[" * 200 + b"]" * 200 + b"}\n",
    "a torn line": b'{"id": 9, "text": "sto',
    "no object": b'[1]\n"a"\n5\nnull\n',
}
CONFIG = {
    "the default": (Path(__file__).parents[2] / "configs" / "default.toml").read_bytes(),
    "dotted keys": b'model = "a"\ninput.paths = ["a", "b"]\ncolumns.types = { n = "int64" }\nengine.tune = false\n',
    "unknown keys": b"[enigne]\nstreams = 2\n[rows]\nnull_txt = 'skip'\n",
    "wrong types": b'[shard]\nrows = -1\ntext_bytes = 1.5\n[engine]\nprecision = "fp8"\nmemory_fraction = nan\n',
    "dates and long strings": b'model = """a\nb"""\n[text]\nprompt = 1979-05-27T07:32:00Z\n',
    "a number of many digits": b"shard.rows = " + b"9" * 5000,
    "nested": b"model = " + b"[" * 200 + b"]" * 200,
    "bad UTF-8": b'model = "\xff"\n',
    "a key twice": b"model = 'a'\nmodel = 'b'\n",
}
SEEDS = {"jsonl": JSONL, "config": CONFIG}
