"""Makes the golden data: awkward texts, and the vectors sentence-transformers gives for each of them.

Usage: python tests/golden/make_golden.py MODEL_FOLDER
"""

# ruff: noqa: RUF001 - look-alike letters are the point, and chance is seeded

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import random
import unicodedata
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy.typing as npt

    Sample = tuple[str, str]
    Count = Callable[[str], int]

SEED = 20240607
MAX_TOKENS = 256
NORM_TOLERANCE = 1e-5
TOKEN_COUNTS = (3, 127, 128, 129, 254, 255, 256, 257, 258, 511, 512, 513)
DOCSTRINGS = 100

# Each of these is one token of the BERT uncased vocabulary.
ONE_TOKEN = [
    "river",
    "stone",
    "window",
    "garden",
    "music",
    "paper",
    "winter",
    "bridge",
    "silver",
    "market",
    "engine",
    "forest",
    "letter",
    "summer",
    "school",
    "doctor",
    "kitchen",
    "island",
    "village",
    "mountain",
    "morning",
    "evening",
    "coffee",
    "dinner",
    "number",
    "question",
    "answer",
    "history",
    "science",
    "language",
    "computer",
    "network",
    "memory",
    "signal",
    "table",
    "chair",
    "street",
    "church",
    "train",
    "plane",
]

WORDS = [
    "a",
    "I",
    "the",
    "hello",
    "Hello",
    "HELLO",
    "data",
    "vector",
    "embedding",
    "antidisestablishmentarianism",
    "naïve",
    "café",
    "Straße",
    "résumé",
    "x",
    "7",
    "42",
    "3.14159",
    "[",
    "]",
    "!",
    "?",
    ".",
    "-",
    "_",
    "%",
    "€",
    "ß",
    "æ",
    "İ",
    "ı",
    "ﬁ",
    "Ω",
    "ℵ",
    "½",
    "²",
    "№",
    "don't",
    "well-known",
    "snake_case",
    "camelCase",
    "e-mail",
    "東",
    "の",
    "한",
    "ж",
    "ع",
    "क",
]

# language: two sentences each
LANGUAGES = {
    "en": ("The ferry leaves the island at seven.", "Nobody had told her that the library closes early."),
    "de": ("Die Fähre verläßt die Insel um sieben Uhr.", "Donaudampfschifffahrtsgesellschaft: große Übung."),
    "fr": ("Le château fut élevé à l'été 1643.", "L'œuvre naïve où brûle un cœur déçu, ça va ?"),
    "es": ("¿Dónde está el niño pequeño?", "¡Qué lástima! Mañana vendrá la cigüeña."),
    "pt": ("A canção não é só do coração.", "Amanhã há reunião às três, avó e avô virão."),
    "it": ("Perché la città è così più bella di notte?", "Il caffè costa un euro e venti."),
    "nl": ("Het ijs smolt op één coöperatieve dag.", "De scheidsrechter floot reünisten terug."),
    "sv": ("Sjuåringen åt räksmörgås på ön.", "Vädret är dåligt i Örebro."),
    "da": ("Rødgrød med fløde på æblegården.", "Øen ligger langt ude i havet."),
    "is": ("Þórður á stóran hest í Ísafirði.", "Ég er að læra íslensku."),
    "fi": ("Hyvää yötä, näkemiin ystäväni.", "Lentokonesuihkuturbiinimoottori hajosi."),
    "pl": ("Zażółć gęślą jaźń.", "W Szczebrzeszynie chrząszcz brzmi w trzcinie."),
    "cs": ("Příliš žluťoučký kůň úpěl ďábelské ódy.", "Dnes je krásně u řeky."),
    "hu": ("Árvíztűrő tükörfúrógép.", "Hol van a vasútállomás?"),
    "ro": ("Țara și știința în limba română.", "Mâine mergem la București."),
    "tr": ("İstanbul'da ılık bir ğüneş ve çığ.", "Işık ILIK İĞNE iğne."),
    "vi": ("Tiếng Việt có rất nhiều dấu thanh.", "Hôm nay trời đẹp quá, chúng ta đi phố nhé."),
    "ru": ("Съешь же ещё этих мягких французских булок.", "Поезд приходит в полночь."),
    "uk": ("Їжак з'їв ґудзик під ялинкою.", "Щастя живе у Києві."),
    "el": ("Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.", "Καλημέρα, τι κάνεις σήμερα;"),
    "ar": ("القطار يصل عند منتصف الليل.", "مُحَمَّدٌ يَكْتُبُ رِسَالَةً طَوِيلَةً."),
    "fa": ("کتاب روی میز است و می‌خوانم.", "امروز هوا بسیار خوب است."),
    "he": ("הרכבת מגיעה בחצות.", "שָׁלוֹם עֲלֵיכֶם, מה שלומך?"),
    "hi": ("रेलगाड़ी आधी रात को आती है।", "मुझे हिन्दी पढ़ना अच्छा लगता है।"),
    "bn": ("আমি বাংলায় গান গাই।", "নদীটি খুব সুন্দর।"),
    "ta": ("தமிழ் ஒரு பழமையான மொழி.", "நாளை மழை வரும்."),
    "th": ("ภาษาไทยไม่มีช่องว่างระหว่างคำ", "วันนี้อากาศดีมาก"),
    "zh": ("火车午夜到达。我喜欢在图书馆看书。", "中文没有空格,也沒有字母。"),
    "ja": ("電車は真夜中に着きます。", "カタカナとひらがなと漢字、パーティー、がぎぐげご。"),
    "ko": ("기차는 자정에 도착합니다.", "오늘은 날씨가 정말 좋네요."),
    "am": ("ባቡሩ እኩለ ሌሊት ላይ ይደርሳል።", "ሰላም ለዓለም ሁሉ።"),
    "ka": ("მატარებელი შუაღამისას მოდის.", "თბილისი ლამაზი ქალაქია."),
    "hy": ("Գնացքը գալիս է կեսգիշերին։", "Երևանը գեղեցիկ է։"),
    "km": ("រថភ្លើងមកដល់ពាក់កណ្តាលអធ្រាត្រ។", "ភាសាខ្មែរ"),
    "my": ("မြန်မာဘာသာစကား", "နေကောင်းလား။"),
    "sw": ("Treni inafika usiku wa manane.", "Habari ya asubuhi, rafiki yangu?"),
}

# What changes under the four Unicode normal forms.
COMPOSED = (
    "café naïve résumé",
    "Ångström Å Å",
    "Việt Nam ngữ điệu",
    "한국어 각",
    "ﬁnance ﬂow ﬀ",
    "x² + y³ = ½",
    "ＦＵＬＬ ｗｉｄｔｈ １２３",
    "ガギグ ｶﾞｷﾞｸﾞ",
    "Ώ ώ ΐ ΰ",
    "नि हिन्दी क़",
    "①②③ Ⅳ ℃ ㎏",
    "ẛ̣ ṩ q̣̇",
)

EMOJI = (
    "😀",
    "😀😃😄",
    "I love it ❤️ so much",
    "👨‍👩‍👧‍👦",
    "family: 👨‍👩‍👧‍👦!",
    "👩🏽‍💻 codes",
    "👍🏿👍🏻👍",
    "🏳️‍🌈 flag",
    "🇩🇪🇫🇷🇯🇵",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿 England",
    "1️⃣2️⃣3️⃣",
    "☺︎ ☺️",
    "word🔥word",
    "🔥" * 100,
    "👨‍👩‍👧‍👦" * 60,
    "Launch day 🚀🚀🚀 #shipit",
    "😂😭🤷‍♀️ idk",
    "mixed 日本🎌 text",
    "🫠🫡🪿",
    "a😀b😀c😀",
    "♠♥♦♣ ♔♕♖ ☀☁☂",
    "∑∫√∞≈≠≤≥ → ⇒ ⟶",
)

# What stands between the words of a control sample.
CONTROLS = {
    "nul": "\x00",
    "bell": "\x07",
    "backspace": "\x08",
    "escape": "\x1b[31m",
    "unit separator": "\x1f",
    "delete": "\x7f",
    "next line": "\x85",
    "c1": "\x9f",
    "soft hyphen": "\xad",
    "no-break space": "\xa0",
    "zero-width space": "\u200b",
    "zero-width joiner": "\u200d",
    "left-to-right mark": "\u200e",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "override": "\u202e",
    "word joiner": "\u2060",
    "ideographic space": "\u3000",
    "byte order mark": "\ufeff",
    "replacement": "\ufffd",
    "noncharacter": "\uffff",
    "private use": "\ue000\uf8ff",
    "unassigned": "\u0378\U000e0fff",
    "private plane": "\U0010fffd",
    "tag": "\U000e0041",
    "variation selector": "\ufe0f",
    "mongolian separator": "\u180e",
    "hangul filler": "\u3164",
}

SPACES = (
    "",
    " ",
    "   ",
    "\t",
    "\n",
    "\r\n",
    "\n\n\n",
    " \t\r\n ",
    "\x0b\x0c",
    "\xa0",
    "\u2003\u2009",
    "\u3000",
    "\u200b",
    "\ufeff",
    "\x00",
    "\xad",
    " " * 1000,
    "\n" * 1000,
    "  two leading spaces",
    "trailing spaces   ",
    "a\tb\tc\td",
    "line one\nline two\nline three",
    "dos line\r\nanother dos line\r\n",
    "old mac\rline",
    "one\n\n\n\n\n\ntwo",
    "many        spaces        between",
    "\n\n\nonly the middle\n\n\n",
    "form\x0cfeed\x0bvertical",
)

HTML = (
    "<p>Hello, <b>world</b>!</p>",
    "<a href='https://example.org/?a=1&amp;b=2'>link</a>",
    "&lt;script&gt;alert(1)&lt;/script&gt; &nbsp; &copy; &#169; &#x1F600;",
    "<!DOCTYPE html><html lang=en><head><title>T</title></head><body></body></html>",
    '<div class="card"><h2>Price</h2><span>12,00&nbsp;€</span></div>',
    "<!-- a comment --> visible",
    "<br/><br><hr>",
    "<ul><li>one</li><li>two</li><li>three</li></ul>",
    "<style>body{color:#fff}</style>text",
    "unclosed <b bold <i italic",
    "<svg viewBox='0 0 10 10'><path d='M0 0L10 10Z'/></svg>",
    "<?xml version='1.0'?><note><to>A</to><![CDATA[<x>&]]></note>",
)

CODE = (
    "def add(a: int, b: int) -> int:\n    return a + b\n",
    "for (int i = 0; i < n; ++i) { sum += a[i]; }",
    '#include <stdio.h>\nint main(void) {\n\tprintf("%d\\n", 42);\n\treturn 0;\n}\n',
    'fn main() { let v: Vec<u8> = (0..10).map(|x| x * 2).collect(); println!("{v:?}"); }',
    "SELECT u.id, COUNT(*) AS n FROM users u LEFT JOIN posts p ON p.uid = u.id GROUP BY 1 HAVING n > 3;",
    "const f = async (x) => await fetch(`/api/${x}`).then(r => r.json());",
    'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("hi") }',
    "public static <T extends Comparable<T>> T max(List<? extends T> xs) { return null; }",
    "grep -rn 'TODO' src/ | awk -F: '{print $1}' | sort -u > out.txt 2>&1",
    "main = interact $ unlines . map (show . (*2) . read) . lines",
    "(define (fact n) (if (= n 0) 1 (* n (fact (- n 1)))))",
    "mov eax, [ebp-0x4]\nadd eax, 0x1\nret",
    "^(?:[a-z0-9!#$%&'*+/=?^_`{|}~-]+)@(?:[a-z0-9]\\.)+[a-z]{2,}$",
    "++++++++[>++++[>++>+++>+++>+<<<<-]>+>+>->>+[<]<-]>>.",
    'FROM python:3.11\nRUN pip install .\nCMD ["python", "-m", "app"]',
    "x <- c(1, 2, NA); mean(x, na.rm = TRUE)",
    "@@ -1,4 +1,4 @@\n-old line\n+new line\n unchanged",
    "class Node<T> { T value; Node<T> next; } // TODO: free()",
    "\\documentclass{article}\\begin{document}$\\int_0^1 x^2\\,dx$\\end{document}",
    "let rec fib n = if n < 2 then n else fib (n-1) + fib (n-2)",
)

NUMBERS = (
    "0",
    "-1",
    "1234567890",
    "3.141592653589793238462643383279",
    "1e-300",
    "1,000,000.00",
    "1.000.000,00 €",
    "+49 (0)30 123456-78",
    "2024-02-29T23:59:60Z",
    "12/31/1999",
    "192.168.0.1",
    "::1/128",
    "0xDEADBEEF",
    "550e8400-e29b-41d4-a716-446655440000",
    "١٢٣٤٥ ۱۲۳ १२३ 一二三",
    "9" * 300,
    "$5 £6 ¥7 ₹8 ₿9",
    "50% of 1/3",
    "ISBN 978-3-16-148410-0",
    "v2.0.0-rc.1+build.5",
)

URLS = (
    "https://example.com",
    "http://user:pass@example.com:8080/path/to/file.html?query=1&x=y#frag",
    "ftp://files.example.org/pub/",
    "mailto:someone@example.org",
    "someone.else+tag@mail.example.co.uk",
    "https://de.wikipedia.org/wiki/Stra%C3%9Fe",
    "https://xn--mnchen-3ya.example/ü",
    "C:\\Users\\Name\\file.txt",
    "/usr/local/lib/python3.11/site.py",
    "see www.example.com, or example.org/a_(b).",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk",
    "@user #hashtag t.co/AbC123",
)

PUNCTUATION = (
    "!",
    "...",
    "…",
    "?!?!?!",
    "----------",
    "——–‐‑‒",
    "\"quoted\" 'single' “curly” ‘curly’ «guillemets» „low“",
    "(((nested)))",
    "[brackets] {braces} <angles>",
    "a.b.c.d.e.f",
    "rock'n'roll isn't y'all'd've",
    "!@#$%^&*()_+-=[]{}|;':\",./<>?`~",
    "* * *",
    "=====\n-----\n=====",
    "。、「」・〜!?",
    "؟ ، ؛",
    "¿¡ § ¶ † ‡ • ‰",
    "." * 600,
    "well...I-I mean--no!",
    "¯\\_(ツ)_/¯",
)

BIDI = (
    "Hello שלום world",
    "שלום Hello עולם",
    "العربية and English وعربي",
    "price: 100 ₪ בלבד",
    "\u202bEmbedded right to left\u202c done",
    "\u2067isolate\u2069 after",
    "file.txt קובץ (version 2)",
    "abc אבג 123 דהו def",
    "١٢٣ abc ٤٥٦",
    "(עברית) [عربي] {english}",
)

CASES = (
    "the quick brown fox",
    "The Quick Brown Fox",
    "THE QUICK BROWN FOX",
    "tHe QuIcK bRoWn FoX",
    "STRASSE straße STRAẞE",
    "İSTANBUL istanbul ISTANBUL ıstanbul",
    "ΣΊΣΥΦΟΣ Σίσυφος σίσυφοσ",
    "ǅ ǆ Ǆ",
    "ÀÉÎÕÜ àéîõü",
    "МОСКВА Москва москва",
    "iPhone eBay NaN",
    "ⒶⒷⒸ ⓐⓑⓒ 𝐁𝐨𝐥𝐝 𝒮𝒸𝓇𝒾𝓅𝓉",
)

STRUCTURED = (
    '{"id": 1, "name": "Ada", "tags": ["x", "y"], "ok": true, "none": null}',
    '{"nested": {"a": {"b": {"c": [1, 2, {"d": 3.5}]}}}}',
    '{"escaped": "line\\nbreak \\u00e9 \\"quote\\""}',
    "[[1,2,3],[4,5,6],[7,8,9]]",
    "name: app\non: [push]\njobs:\n  test:\n    runs-on: linux\n",
    "[section]\nkey = value\n; comment\nother=1\n",
    'id,name,amount\n1,Ada,10.5\n2,"Lovelace, A.",11\n',
    "id\tname\tamount\n1\tAda\t10.5\n",
    "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |",
    "+-----+-----+\n| one | two |\n+-----+-----+\n|   1 |   2 |\n+-----+-----+",
    "# Title\n\n## Section\n\n- item **bold**\n- item *it*\n\n> quote\n\n```py\nx = 1\n```\n",
    "1. first\n2. second\n   - nested\n3. [link](http://e.org) ![img](a.png)",
    "Name      Qty   Price\nApple       3    1.20\nPear       12    0.95",
    "From: a@e.org\nTo: b@e.org\nSubject: =?UTF-8?B?w4k=?=\n\nBody",
    "2024-01-01 12:00:00,123 ERROR [main] app.Server - failed: java.io.IOException: broken pipe",
    'Traceback (most recent call last):\n  File "a.py", line 1, in f\nZeroDivisionError: division by zero',
    "BEGIN:VCARD\nVERSION:3.0\nFN:Ada\nEND:VCARD",
    "GET /index.html HTTP/1.1\r\nHost: example.org\r\n\r\n",
)

SPECIAL_TOKENS = (
    "[CLS]",
    "[SEP]",
    "[PAD]",
    "[MASK]",
    "[UNK]",
    "[CLS] text [SEP]",
    "[SEP] in the [SEP] middle",
    "The capital of France is [MASK].",
    "[cls] lower [sep] [pad]",
    "[PAD] [PAD] [PAD] padded",
    "##ing ##s ##ly",
    "[unused0] [unused99]",
    "text [PAD] [PAD]",
    "<s> </s> <pad> <unk> <|endoftext|>",
)

MODULES = [
    "argparse",
    "array",
    "ast",
    "asyncio",
    "base64",
    "bisect",
    "calendar",
    "collections",
    "contextlib",
    "copy",
    "csv",
    "datetime",
    "decimal",
    "difflib",
    "email.message",
    "enum",
    "fractions",
    "functools",
    "gzip",
    "hashlib",
    "heapq",
    "html",
    "http.client",
    "inspect",
    "io",
    "itertools",
    "json",
    "logging",
    "math",
    "multiprocessing",
    "operator",
    "os",
    "pathlib",
    "pickle",
    "platform",
    "queue",
    "random",
    "re",
    "sched",
    "shutil",
    "socket",
    "sqlite3",
    "statistics",
    "string",
    "struct",
    "subprocess",
    "tarfile",
    "tempfile",
    "textwrap",
    "threading",
    "timeit",
    "tokenize",
    "traceback",
    "types",
    "typing",
    "unittest",
    "urllib.parse",
    "uuid",
    "weakref",
    "zipfile",
]


def load(folder: Path) -> SentenceTransformer:
    """The model on the CPU in float32, on one thread, cutting texts at 256 tokens."""
    torch.set_num_threads(1)
    model = SentenceTransformer(str(folder), device="cpu").to(torch.float32)
    model.max_seq_length = MAX_TOKENS
    return model


def counter(model: SentenceTransformer) -> Count:
    """A function that counts the tokens of a text, special tokens included, without truncation."""
    tokenizer: Any = model.tokenizer
    return lambda text: len(tokenizer(text, truncation=False, verbose=False)["input_ids"])


def sized(words: int, chance: random.Random) -> str:
    """A text of so many one-token words: `words` + 2 tokens."""
    return " ".join(chance.choice(ONE_TOKEN) for _ in range(words))


def exact(chance: random.Random, count: Count) -> Iterator[Sample]:
    """Three texts for each token count around the limits, and words cut apart by the limit."""
    for tokens in TOKEN_COUNTS:
        for _ in range(3):
            text = sized(tokens - 2, chance)
            if count(text) != tokens:
                raise ValueError(f"expected {tokens} tokens, found {count(text)}")
            yield f"tokens {tokens}", text
    for words in range(248, 255):
        yield "tokens cut", sized(words, chance) + " antidisestablishmentarianism"
    for text in ("é" * 254, "é " * 254, "東" * 255, "a-" * 127, "a-" * 127 + "a", "東京 " * 127 + "x"):
        yield f"tokens {count(text)}", text


def long_texts(chance: random.Random) -> Iterator[Sample]:
    """Texts of 5,000 words and single words that are very long."""
    yield "words 5000", "word " * 4999 + "word"
    yield "words 5000", " ".join(chance.choice(ONE_TOKEN) for _ in range(5000))
    yield "words 5000", "\n".join(str(number) for number in range(5000))
    for size in (50, 99, 100, 101, 200, 201, 2000):
        yield "long word", "".join(chance.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(size))
        yield "long word", "before " + "z" * size + " after"
    for text in ("ö" * 200, "日" * 200, "가" * 200, "ก" * 200, "ab-" * 300, "A" * 2000 + " tail"):
        yield "long word", text


def languages(chance: random.Random) -> Iterator[Sample]:
    """Two sentences per language, a long text for some, and mixed scripts."""
    for language, (first, second) in LANGUAGES.items():
        yield f"language {language}", first
        yield f"language {language}", second
    for language in ("de", "ru", "ar", "hi", "th", "zh", "ja", "ko", "am"):
        yield f"language {language}", " ".join(LANGUAGES[language] * 6)
    sentences = [sentence for pair in LANGUAGES.values() for sentence in pair]
    for size in (2, 3, 4, 6, 8, 12):
        yield "language mixed", " ".join(chance.sample(sentences, size))


def normal_forms() -> Iterator[Sample]:
    """Each of `COMPOSED` in those normal forms that differ."""
    for text in COMPOSED:
        forms = {form: unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")}
        for form, changed in forms.items():
            yield f"form {form}", changed
    for text in ("a" + "\u0301" * 50, "\u0301 alone", "Z\u0351\u036b\u0343a\u0328\u0322l\u0335g\u0321o"):
        yield "form combining", text


def controls() -> Iterator[Sample]:
    """Each control between letters of a word, and between words."""
    for name, control in CONTROLS.items():
        yield f"control {name}", f"con{control}trol"
        yield f"control {name}", f"{control}before {control} after{control}"


def prose(chance: random.Random) -> Iterator[Sample]:
    """Docstrings of the standard library: as many short as long ones."""
    found: dict[str, None] = {}
    for name in MODULES:
        module = importlib.import_module(name)
        members = [getattr(module, member) for member in sorted(vars(module)) if not member.startswith("_")]
        for thing in [module, *members]:
            found.setdefault((inspect.getdoc(thing) or "")[:2500].strip())
    ordered = sorted((text for text in found if text.isascii() and len(text) > 20), key=lambda t: (len(t), t))
    step = len(ordered) / DOCSTRINGS
    for index in range(DOCSTRINGS):
        low = int(index * step)
        yield "prose", ordered[chance.randrange(low, max(low + 1, int((index + 1) * step)))]


def fixed() -> Iterator[Sample]:
    """The texts written out above."""
    tables = {
        "word": WORDS,
        "emoji": EMOJI,
        "space": SPACES,
        "html": HTML,
        "code": CODE,
        "number": NUMBERS,
        "url": URLS,
        "punctuation": PUNCTUATION,
        "bidi": BIDI,
        "case": CASES,
        "structured": STRUCTURED,
        "special token": SPECIAL_TOKENS,
    }
    for kind, texts in tables.items():
        for text in texts:
            yield kind, text


def distinct(samples: Iterable[Sample]) -> list[Sample]:
    """The samples without those whose text came before."""
    kept: dict[str, str] = {}
    for kind, text in samples:
        text.encode("utf-8")  # refuses lone surrogates
        kept.setdefault(text, kind)
    return [(kind, text) for text, kind in kept.items()]


def build(count: Count) -> list[Sample]:
    """All samples, always the same ones for one version of Python."""
    chance = random.Random(SEED)
    return distinct(
        [
            *fixed(),
            *exact(chance, count),
            *long_texts(chance),
            *languages(chance),
            *normal_forms(),
            *controls(),
            *prose(chance),
        ]
    )


def encode(model: SentenceTransformer, texts: list[str]) -> npt.NDArray[np.float32]:
    """The vectors of the texts, float32 [n, width]; one text per call, so that nothing is padded."""
    vectors = [np.asarray(model.encode([text], batch_size=1, show_progress_bar=False)) for text in texts]
    return np.concatenate(vectors).astype(np.float32, copy=False)


def check(model: SentenceTransformer, vectors: npt.NDArray[np.float32]) -> None:
    """Refuses a model that does not cut at 256 tokens, and vectors that are not finite and of length 1."""
    features = model.preprocess(["word " * 5000])
    if features["input_ids"].shape[1] != MAX_TOKENS:
        raise ValueError(f"5,000 words gave {features['input_ids'].shape[1]} tokens, not {MAX_TOKENS}")
    if not np.isfinite(vectors).all():
        raise ValueError("a vector holds NaN or infinity")
    if np.abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1).max() > NORM_TOLERANCE:
        raise ValueError("a vector is not of length 1")


def write(folder: Path, samples: list[Sample], vectors: npt.NDArray[np.float32]) -> None:
    """Writes `texts.jsonl` and `vectors.npy`, float32 [n, width]."""
    lines = [json.dumps({"kind": kind, "text": text}, ensure_ascii=True) + "\n" for kind, text in samples]
    (folder / "texts.jsonl").write_text("".join(lines), encoding="ascii", newline="\n")
    np.save(folder / "vectors.npy", vectors)


def main() -> None:
    """Makes both files next to this one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", metavar="MODEL_FOLDER", type=Path)
    model = load(parser.parse_args().model)
    samples = build(counter(model))
    vectors = encode(model, [text for _, text in samples])
    check(model, vectors)
    write(Path(__file__).parent, samples, vectors)
    kinds = Counter(kind.split()[0] for kind, _ in samples)
    print(f"{len(samples)} texts, vectors {vectors.shape}: {dict(kinds)}")


if __name__ == "__main__":
    main()
