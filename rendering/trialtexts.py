"""Texts on which tokenizers have been seen to differ; what counts them right is trusted with others."""

from collections.abc import Sequence
from random import Random

NUM_TEXTS = 500

_PIECES = (
    "The baker's shop opens at 7:30 a.m.; they'll sell out by noon.",
    "WHY DON'T WE?  I'VE NO IDEA",
    "naïve café – “quoted” … déjà‑vu",
    "e\u0301 a\u0308 o\u0302\u0323",
    "שלום עולם, מה שלומך?",
    "السلام عليكم ورحمة الله",
    "\u202bעברית\u202c mixed עם English 123",
    "كتاب\u064b ١٢٣٤",
    "今日はいい天気ですね。",
    "我们明天去图书馆看书。",
    "한국어 문장입니다.",
    "ภาษาไทยไม่มีช่องว่าง",
    "ｆｕｌｌｗｉｄｔｈ　１２３",
    "नमस्ते दुनिया",
    "বাংলা লেখা",
    "தமிழ் எழுத்து",
    "Ελληνικά και Кириллица",
    "Tiếng Việt có dấu",
    "ქართული ენა",
    "አማርኛ",
    "👩‍👩‍👧‍👦 family",
    "🏳️‍🌈🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f flags 🇩🇪🇯🇵",
    "👍🏽👍🏿 ok",
    "☺️ ☹ ♥︎",
    "\U0001f9d1\u200d\U0001f680",
    "3.14159, 1,000,000 and 0x1F",
    "12345678901234567890",
    "1/2 + 3/4 = 5/4",
    "2024-02-29T23:59:60Z",
    "٣٫١٤ Ⅻ ²³ ½",
    'def f(x: int) -> str:\n\treturn f"{x:>10}"\n',
    "if (a&&b||!c){d[i++]^=~e;}",
    "SELECT * FROM t WHERE a='b';",
    '<div class="x">&nbsp;</div>',
    "\\frac{a}{b} $x_1^2$",
    "https://example.com/a?b=c&d=%20#e",
    "user@example.org",
    "C:\\dir\\file.txt",
    "snake_case CamelCase kebab-case",
    '{"a": [1, null, true], "b": "\\u00e9"}',
    "line\nline\n\nline\r\nline\rline",
    "\ttab\t\ttab",
    "   three   spaces   ",
    "a\u00a0b\u2003c\u3000d",
    "\u200bzero\u200dwidth\ufeff",
    "a\u2028b\u2029c\x85d",
    "\x00\x01\x1f\x7f",
    "----====****####",
    "!!!???...,,,;;;",
    "'s 't 're 've 'm 'll 'd 'S 'T",
    "«a» ‹b› „c“",
    "\ufffd\ufffe\U0010ffff",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "ß ﬁ ſ İ ı",
)


def awkward_texts(added_tokens: Sequence[str]) -> list[str]:
    """Scripts, signs, blanks, long runs, and added tokens inside of texts; the same for the same added tokens."""
    tokens = [token for token in added_tokens if token][:40]
    texts = ["", *_PIECES, *(blank * times for blank in (" ", "\n", "\t", "\r\n", " \n") for times in (1, 2, 3, 4, 7, 16, 33))]
    texts += [f"{sign}{number}" for number in (7, 42, 365, 1_000, 65_536, 10**12, 10**30) for sign in ("", "-", " ", "$")]
    texts += [form.format(token) for token in tokens for form in ("{}", "a {} b", "a{}b", " {0}\n{0}")]
    texts += [" ".join(_PIECES) * 20, "".join(_PIECES), "word " * 3_000, "ab" * 3_000]
    draw = Random(7)  # noqa: S311 - always the same texts
    while len(texts) < NUM_TEXTS:
        pieces = draw.sample(_PIECES, draw.randint(2, 6)) + (draw.sample(tokens, 1) if tokens and draw.random() < 0.3 else [])
        draw.shuffle(pieces)
        text = draw.choice(("", " ", "\n", ", ")).join(pieces)
        texts.append(text[draw.randint(0, 5) : len(text) - draw.randint(0, 5)])
    return texts
