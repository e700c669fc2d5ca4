"""Token ids of tricky texts by the two Python references.

    python generate.py OUT        (the committed file: `python generate.py .` in this folder)

Made with transformers 5.23.0, tokenizers 0.23.3, open_clip_torch 3.3.0 (its `SimpleTokenizer` is OpenAI's but
for the spelling of the two special tokens, which is set back here), ftfy 6.3.1.
Needs `text/tokenizer.json` and `text/openai-clip/bpe_simple_vocab_16e6.txt.gz` of the test data.

`expected.json` is `{"full_context": 77, "reduced_merges": 86, "reduced_context": 20, "cases": [...]}`; a case is
`{"text", "ids", "reduced"}`: the ids of `CLIPTokenizerFast` with the full tokenizer and with the first 86 merges (the one
of `clip_tiny/quick`), begin and end included, cut to the context. Where OpenAI's own tokenizer gives other ids, `openai`
holds them and `why` the reason.
"""

import html
import json
import random
import sys
import tempfile
import unicodedata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import clip_reference as reference
import ftfy
import regex
from open_clip.tokenizer import SimpleTokenizer
from transformers import CLIPTokenizerFast, PreTrainedTokenizerFast

MERGES, CONTEXT, REDUCED_CONTEXT = 86, 77, 20


def texts():
    """A few hundred texts, each there for a reason."""
    groups = [
        # plain prompts, case, spaces around
        ["a photo of a cat.", "A Photo Of A CAT.", "itap of a great white shark", "hello", "Hello, World!", "a", "A", ".",
         " leading", "trailing ", "  two  inner   spaces ", "x" * 40, "a-b_c/d\\e", "under_score", "CamelCaseWord"],
        # nothing, and only white space of every kind
        ["", " ", "   ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u200b", "\ufeff", "\u2028", "\u0085"],
        # white space inside
        [f"left{space}right" for space in "\t\n\r\v\f\u00a0\u1680\u2000\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000\u0085"],
        # invisible characters that are no white space
        [f"left{mark}right" for mark in "\u200b\u200c\u200d\u2060\ufeff\u00ad\u180e\u200e\u200f\u202a\u202e\u2066\u2069"],
        # control characters
        [f"left{chr(code)}right" for code in [*range(0, 9), *range(14, 32), 0x7f, 0x80, 0x9f]],
        # contractions and apostrophes of every kind
        [f"{word}'{end}" for word in ("it", "IT", "we") for end in ("s", "S", "t", "re", "RE", "ve", "m", "ll", "LL", "d")],
        ["don't can't won't", "y'all'd've", "'s", "''s", "'tis the season", "rock 'n' roll", "dogs' toys", "it\u2019s",
         "it\u2018s", "it\u02bcs", "it`s", "it\u00b4s", "\u201cquoted\u201d", "'\u017f", "it'\u017f", "o'clock", "l'été"],
        # digits and numbers of many scripts
        ["0", "7", "10", "1234567890", "3.14159", "1,000,000", "1e-5", "2024-01-31", "12:30", "50%", "$9.99", "x2", "2x",
         "½ ¼ ¾", "²³¹", "①②③", "Ⅷ ⅷ", "١٢٣", "१२३", "১২৩", "௧௨௩", "〇一二三", "０１２", "H₂O", "𝟙𝟚𝟛", "𐄇"],
        # accents: composed, decomposed, stacked, out of order
        ["café", "cafe\u0301", "naïve façade", "nai\u0308ve", "Ångström", "A\u030angstro\u0308m", "\u212b", "q\u0307\u0323",
         "q\u0323\u0307", "ạ\u0302", "Việt Nam", "Vie\u0302\u0323t", "z\u0335\u0321a\u0338l\u0336g\u0337o\u0334",
         "\u0301", "\u0301a", "a \u0301 b", "ñandú", "Çelik", "čeština", "żółw", "ŝercu", "œuvre", "Æsir", "ﬁne ﬂow",
         "ﬃ", "ǆ ǅ Ǆ", "ŉ", "\u0344", "\u2126 \u03a9"],
        # letters whose lower case is longer, shorter or depends on the place
        ["İstanbul", "ISTANBUL", "ıI", "Iİıi", "STRASSE Straße", "ẞ", "ΟΔΟΣ", "ΣΑΣ ΣΑΣ.", "Σ", "aΣ", "ΑΣ'", "ὈΔΥΣΣΕΎΣ",
         "ᾼ ᾳ", "Ǖ", "Ⱥ Ⱦ", "Ꭰ ꭰ", "Ა ა", "Ⴀ", "ℌ ℑ", "K \u212a", "Ⓐ ⓐ", "𝐀𝐁", "𐐀 𐐨", "ǅungla"],
        # East Asian scripts, half and full width
        ["猫", "一只猫的照片", "猫の写真", "ネコ", "ﾈｺ", "ｶﾞ", "か\u3099", "が", "고양이", "\u1100\u1161", "각", "龍龙竜",
         "\uf900", "\u2f00", "𠮷野家", "ＡＢＣ ａｂｃ", "ｆｕｌｌ－ｗｉｄｔｈ", "１２３！？", "「引用」、。", "〜～", "ー—–-"],
        # right to left and complex scripts
        ["قطة", "صورة قطة", "קטע", "תמונה של חתול", "שָׁלוֹם", "مُحَمَّد", "لا", "\ufefb", "ہندی", "बिल्ली", "क्\u200dष", "விலங்கு", "แมว", "ภาพแมว", "ຮູບ",
         "ខ្មែរ", "ကြောင်", "དབྱངས", "ღ კატა", "կատու", "ድመት", "ᏣᎳᎩ", "ᐃᓄᒃᑎᑐᑦ", "ⵜⴰⵎⴰⵣⵉⵖⵜ", "ߒߞߏ", "𞤀𞤁𞤢", "כּ", "\ufb2e"],
        # emoji: plain, skin tone, joined, flags, keycaps, variation selectors, tags
        ["😀", "😀😀", "a😀b", "👍🏽", "👩\u200d💻", "👨\u200d👩\u200d👧\u200d👦", "🏳\ufe0f\u200d🌈", "🇩🇪", "🇩🇪🇫🇷", "1\ufe0f\u20e3", "☺", "☺\ufe0f", "❤\ufe0f\u200d🔥",
         "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "🫠", "🫨", "🪿", "©™®", "→⇒", "♠♣", "♂\ufe0f"],
        # HTML entities and markup, once and twice escaped
        ["cats &amp; dogs", "cats &amp;amp; dogs", "&lt;b&gt;bold&lt;/b&gt;", "&quot;x&quot;", "&#39;s", "&#x1F600;", "&nbsp;",
         "&eacute;t&eacute;", "&notanentity;", "AT&T", "a & b", "&", "<br/>", "<p>text</p>", "&copy 2020"],
        # wrongly decoded text, curly quotes, dashes, escapes
        ["cafÃ©", "itâ€™s", "Ã¼ber", "schÃ¶n", "“smart” ‘quotes’", "…", "...", "a\x1b[31mred\x1b[0m", "\ufffd", "caf\u00c3\u00a9 ☕"],
        # punctuation runs
        ["!!!", "?!?!", "...", "--", "---", "a...b", "(a)", "[b]", "{c}", "<d>", "\"e\"", "'f'", "#tag", "@user", "a@b.c",
         "http://example.org/a?b=c&d=e#f", "C++", "C#", ":-)", ":)", "^_^", "~", "|", "\\", "`code`", "$", "€100", "§1", "¡¿"],
        # the names of special tokens
        ["<|startoftext|>", "<|endoftext|>", "a <|endoftext|> b", "<|STARTOFTEXT|>", "<|ENDOFTEXT|>", "<|startoftext|>x",
         "x<|endoftext|>", "<|endoftext|><|endoftext|>", "<|pad|>", "<start_of_text>", "</w>", "the</w>", "Ġthe", "<|endof text|>"],
        # private use, unassigned, outside the first plane, largest code point
        ["\ue000", "\uf8ff", "\U000f0000", "\u0378", "\U0001fbff", "\U0010ffff", "\U00016a40", "𒀀", "𓀀", "𝔘𝔫𝔦", "𝒳", "ꙮ", "Ɐ", "ꞌ"],
        # at, around and beyond the context
        ["dog " * 17, "dog " * 18, "dog " * 19, "dog " * 74, "dog " * 75, "dog " * 76, "a photo of " * 40, "猫" * 100, "1" * 100,
         "!" * 300, "supercalifragilisticexpialidocious" * 10, ("é" * 50 + " ") * 3],
        # medicine and class names
        ["an X-ray of pneumonia", "CD4+ T-cells (HLA-DR)", "β-thalassemia", "5-HT₂A receptor", "µm μm", "Sjögren's syndrome", "37.5 °C",
         "Boeing 737-800", "BMW M3 Coupe 2012", "t-shirt", "great_white_shark", "kite (bird of prey)", "Permanent Crop Land"],
    ]
    found = [text for group in groups for text in group]
    draw = random.Random(20)
    pools = ["abcdefghij 'sStT.,!?-", "aeiouyAEIOU\u0300\u0301\u0308\u0323 ", "猫犬カキ가나一丁 a1", "😀👍🏽\u200d\ufe0f❤🇩🇪 a",
             "אבגدهو\u064b\u05b0 a1", "<|endoftext>'s </w>", "".join(map(chr, range(0x20, 0x250)))]
    found += ["".join(draw.choices(pool, k=draw.randint(1, 24))) for pool in pools for _ in range(12)]
    return list(dict.fromkeys(found))


def openai_tokenizer(path):
    """OpenAI's tokenizer: OpenCLIP's, with `<|startoftext|>` for `<start_of_text>` and the like."""
    tokenizer = SimpleTokenizer(str(path))
    pattern = tokenizer.pat.pattern
    for theirs, ours in (("<start_of_text>", reference.BEGIN), ("<end_of_text>", reference.END)):
        assert theirs in pattern
        pattern = pattern.replace(theirs, regex.escape(ours))
        tokenizer.encoder[ours] = tokenizer.encoder.pop(theirs)
        tokenizer.cache[ours] = ours
        del tokenizer.cache[theirs]
    tokenizer.pat = regex.compile(pattern, regex.IGNORECASE)
    return tokenizer


def why(text, same):
    """The first step of OpenAI's cleaning after which the rest agrees; `same` compares ids for a cleaned text."""
    fixed = ftfy.fix_text(text)
    resolved = html.unescape(html.unescape(fixed))
    if same(fixed):
        return "ftfy repairs the text"
    if same(resolved):
        return "HTML entities are resolved"
    if "<|" in text:
        return "the names of special tokens"
    if same(resolved.lower()):
        return "lower case depends on the place (final sigma)"
    assert "'\u017f" in text, text
    return "the long s counts as an s after an apostrophe"


def main(out):
    data = reference.data_folder() / "text"
    full = CLIPTokenizerFast(tokenizer_file=str(data / "tokenizer.json"))
    plain = PreTrainedTokenizerFast(tokenizer_file=str(data / "tokenizer.json"))
    openai = openai_tokenizer(data / "openai-clip" / "bpe_simple_vocab_16e6.txt.gz")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(reference.reduced_tokenizer(MERGES), encoding="utf-8")
        reduced = PreTrainedTokenizerFast(tokenizer_file=str(path))

    cases, other = [], []
    for text in texts():
        def encode(text, tokenizer=plain, context=CONTEXT):
            return tokenizer(text, truncation=True, max_length=context).input_ids

        ids = encode(text)
        if full(text, truncation=True, max_length=CONTEXT).input_ids != ids:
            other.append(text)
        row = openai(text, context_length=CONTEXT)[0].tolist()
        row = row[: len(row) - next(count for count, value in enumerate(reversed(row)) if value == 49407)]
        case = {"text": text, "ids": ids, "reduced": encode(text, reduced, REDUCED_CONTEXT)}
        if row != ids:
            case |= {"openai": row, "why": why(text, lambda cleaned: encode(cleaned) == row)}
        cases.append(case)

    Path(out).mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    head = f'"full_context":{CONTEXT},"reduced_merges":{MERGES},"reduced_context":{REDUCED_CONTEXT}'
    (Path(out) / "expected.json").write_text(f'{{{head},"cases":[\n{lines}\n]}}\n', encoding="ascii")
    reasons = [case["why"] for case in cases if "why" in case]
    print(len(cases), "texts; OpenAI differs on", len(reasons), {reason: reasons.count(reason) for reason in reasons},
          "; CLIPTokenizerFast and PreTrainedTokenizerFast differ on", other,
          "; Unicode", unicodedata.unidata_version, file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
