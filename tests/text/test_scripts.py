"""Languages as they are written: a table of thirty, and what is made of their texts."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiomill.config.stages import ModelConfig
from audiomill.config.text import TranscriptConfig
from audiomill.errors import ModelError
from audiomill.models.checkpoint import check_options, find_checkpoint
from audiomill.models.ctc.greedy_decoding import CtcVocabulary
from audiomill.models.ctc.labels import form_of, plain_letters
from audiomill.text.normalize import normalizer, units_of
from audiomill.text.repetition import num_repeats
from audiomill.text.scripts import blanks_between, is_unspaced, join_words, lowered, scripts_of, units, uppered, width
from audiomill.text.subtitles import Cue, cues_of_text, cues_of_words, in_lines, srt
from audiomill.text.wer import errors_by_piece, score_pair

SAME = [
    ("en", "Mr. Smith's colour isn't gray!", "mister smith is color is not gray"),
    ("de", "Die STRASSE ist groß.", "die straße ist gross"),
    ("tr", "IŞIK İSTANBUL'da", "ışık istanbul da"),
    ("az", "QIZIL İT", "qızıl it"),
    ("el", "ΟΔΥΣΣΕΥΣ", "οδυσσευσ"),
    ("fr", "L’été, déjà ?", "l été de\u0301ja\u0300"),
    ("es", "¿Qué tal, José?", "qué tal jose\u0301"),
    ("pt-BR", "Não, coração!", "não coração"),
    ("vi", "Tiếng Việt", unicodedata.normalize("NFD", "tiếng việt")),
    ("pl", "Zażółć gęślą jaźń", "zażółć gęślą jaźń"),
    ("ru", "Ёлка, ЁЛКА", "ёлка ёлка"),
    ("uk", "Їжак і ґава", "їжак і ґава"),
    ("hy", "Բարեւ ՁԵԶ", "բարեւ ձեզ"),
    ("ka", "გამარჯობა!", "გამარჯობა"),
    ("ar", "السَّلَامُ عَلَيْكُم ١٢٣", "السلام عليكم 123"),
    ("fa", "سلام، خوبی؟", "سلام خوبی"),
    ("ur", "یہ کتاب ہے۔", "یہ کتاب ہے"),
    ("he", "שָׁלוֹם עוֹלָם", "שלום עולם"),
    ("hi", "दिन की पानी। १२", "दिन की पानी 12"),
    ("bn", "আমি বাংলায় কথা বলি।", unicodedata.normalize("NFD", "আমি বাংলায় কথা বলি")),
    ("ta", "தமிழ் மொழி!", "தமிழ் மொழி"),
    ("ml", "എന്റെ കമ്പ്യൂട്ടറിനു് എന്റെ ഭാഷ", "എന്റെ കമ്പ്യൂട്ടറിനു് എന്റെ ഭാഷ!"),
    ("pl", "w\u00a0domu\ti\r\nw pracy", "w domu i w pracy"),
    ("ko", "안녕하세요, 여러분!", unicodedata.normalize("NFD", "안녕하세요 여러분")),
    ("zh", "今天，天气很好！", "今天天气很好"),
    ("zh", "ＡＢＣ公司", "abc公司"),
    ("ja", "東京タワーへ行く。", "東京 タワー へ 行く"),
    ("th", "สวัสดี ครับ", "สวัสดีครับ"),
    ("lo", "ສະບາຍ ດີ", "ສະບາຍດີ"),
    ("km", "សួស្តី ពិភពលោក", "សួស្តីពិភពលោក"),
    ("my", "မင်္ဂလာ ပါ", "မင်္ဂလာပါ"),
    ("am", "ሰላም ነው።", "ሰላም ነው"),
    (None, "Où est-il?", "où est il"),
]
OTHER = [
    ("hi", "दिन की पानी", "दन का पन", 3, 3),
    ("ml", "എന്റെ കമ്പ്യൂട്ടറിനു് എന്റെ ഭാഷ", "എന്റെ കമ്പ്യൂട്ടർ എന്റെ ഭാഷ", 4, 1),
    ("hi", "प्राचीन संस्कृतियों और जनजातियों", "प्राचीन संस्कृतियों और जनजाति", 4, 1),
    ("zh", "宋朝末年年间定居粉岭围。", "宋朝末年年间定居分定为", 11, 3),
    ("ja", "これは日本語です", "これは日本話です", 8, 1),
    ("ta", "மொழி", "மொழ", 1, 1),
    ("th", "กำไร", "กาไร", 4, 1),
    ("zh", "今天天气很好", "今天天汽很好", 6, 1),
    ("ja", "東京タワー", "東京タワ", 4, 1),
    ("zh", "我用 Python 写", "我用 Java 写", 4, 1),
    ("ko", "안녕 하세요", "안녕 하세오", 2, 1),
    ("vi", "tiếng Việt", "tieng Viet", 2, 2),
    ("tr", "ısı", "isi", 1, 1),
    ("ar", "كتاب كبير", "كتب كبير", 2, 1),
    ("en", "", "hello there", 0, 2),
]
"""Reference, hypothesis, units of the reference, edits."""


@pytest.mark.parametrize(("language", "one", "other"), SAME)
def test_two_ways_of_writing_the_same_are_no_error(language: str | None, one: str, other: str) -> None:
    words, characters = score_pair(one, other, language)
    assert (words.rate, characters.rate) == (0, 0), (units_of(one, language), units_of(other, language))
    assert words.num_reference > 0


@pytest.mark.parametrize(("language", "reference", "hypothesis", "count", "edits"), OTHER)
def test_what_is_wrong_counts(language: str, reference: str, hypothesis: str, count: int, edits: int) -> None:
    words, characters = score_pair(reference, hypothesis, language)
    found = words.substitutions + words.deletions + words.insertions
    assert (words.num_reference, found) == (count, edits) and characters.rate > 0
    pieces = errors_by_piece(reference, [hypothesis], language)
    assert pieces[0].num_edits == edits and pieces[0].num_reference == count


@pytest.mark.parametrize(
    ("text", "is_so"), [("今天好 OK", True), ("สวัสดี", True), ("hello 世界", False), ("안녕", False), ("12", False)]
)
def test_letters_are_words_where_most_are_of_scripts_without_blanks(text: str, is_so: bool) -> None:
    assert is_unspaced(text) == is_so


def test_a_loop_is_one_in_every_script() -> None:
    assert num_repeats(units("谢谢谢谢谢谢谢谢")) >= 4 and num_repeats(units("go on go on go on")) == 3


def test_small_and_capital_letters_are_those_of_the_language() -> None:
    assert (lowered("IİSI", "tr"), lowered("IİSI", "en"), uppered("iı", "tr-TR")) == ("ıisı", "iisi", "İI")


def test_scripts_have_unicode_s_names() -> None:
    assert scripts_of("Zoë 漢字 ελ 12! ーゞ한") == {"latin", "han", "greek", "hiragana", "hangul"}
    assert scripts_of("हिन्दी คำ") == {"devanagari", "thai"}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["今", "天", "天", "气"], "今天天气"),
        (["我", "用", "Python", "写"], "我用 Python 写"),
        (["amer", "icans", "live"], "americans live"),
        (["สวัส", "ดี", "ครับ"], "สวัสดี ครับ"),
        (["hello", "world"], "hello world"),
        (["don", "'t", "stop"], "don't stop"),
    ],
)
def test_subtitles_have_the_blanks_of_the_text(words: list[str], text: str) -> None:
    cues = cues_of_words([Cue(0.3 * n, 0.3 * n + 0.3, word) for n, word in enumerate(words)], text)
    assert [cue.text for cue in cues] == [text]


def test_words_that_the_text_lacks_are_joined_by_their_scripts() -> None:
    assert blanks_between(["今", "天", "ok", "go"], "") == ["", "", " ", " "]
    assert join_words(["東", "京", "tower", "へ"]) == "東京 tower へ"


def test_lines_are_as_wide_as_a_screen_and_break_where_the_script_allows() -> None:
    chinese = "今天天气很好我们一起去公园散步然后回家吃饭看电视，再睡觉。"
    first, second = in_lines(chinese).split("\n")
    assert width(first) <= 42 and width(second) <= 42 and first + second == chinese and second[0] not in "，。"
    english = "one two three four five six seven eight nine ten eleven"
    lines = in_lines(english).split("\n")
    assert len(lines) == 2 and " ".join(lines) == english and max(map(len, lines)) <= 42
    assert in_lines("short") == "short" and in_lines("x" * 60) == "x" * 60


def test_a_long_text_without_times_of_words_becomes_cues_that_can_be_read() -> None:
    """Continuous speech became single cues of 20 to 60 s (rescript PR #98)."""
    text = " ".join(f"word{n}" for n in range(80))
    cues = cues_of_text(Cue(10.0, 40.0, text))
    assert " ".join(cue.text for cue in cues) == text and len(cues) >= 5
    assert all(cue.stop_s - cue.start_s <= 7 + 1e-9 and width(cue.text) <= 84 for cue in cues)
    assert (cues[0].start_s, round(cues[-1].stop_s, 6)) == (10.0, 40.0)
    assert cues_of_text(Cue(0.0, 1.0, " ")) == [] and cues_of_text(Cue(0.0, 1.0, "yes")) == [Cue(0.0, 1.0, "yes")]


def test_a_blank_line_in_a_text_ends_no_cue() -> None:
    """Memento#69: players stop reading there."""
    assert srt([Cue(0.0, 2.0, "帝国軍\n\n中央の第４艦隊を撃破")]).count("\n\n") == 0


def test_no_cue_is_empty_and_chinese_sentences_end_cues() -> None:
    words = [Cue(n * 0.2, n * 0.2 + 0.2, word) for n, word in enumerate(["你", "好", "。", " ", "再", "见"])]
    cues = cues_of_words(words, "你好。再见")
    assert [cue.text for cue in cues] == ["你好。", "再见"] and "\n\n\n" not in srt(cues)


@given(st.text())
def test_normalising_twice_changes_nothing_and_units_hold_all_letters(text: str) -> None:
    clean = normalizer(None)
    once = clean(text)
    assert clean(once).split() == once.split()
    assert "".join(units(text)) == "".join(each for each in text if not each.isspace()) or not text.isprintable()


def test_labels_have_the_letters_of_their_language() -> None:
    assert plain_letters("IŞIK, İSTANBUL", "tr") == "ışık istanbul"
    assert plain_letters("दिन की पानी।", "hi") == "दिन की पानी"
    german = form_of(CtcVocabulary(("<pad>", "|", *"STRAE"), 0, "|"), False)
    assert german.is_upper and german.tokens("Straße", "de") == [2, 3, 4, 5, 2, 2, 6]
    phonemes = form_of(CtcVocabulary(("<pad>", "|", "B", "AH"), 0, "|", spaced=True), False)
    assert phonemes.is_upper and phonemes.tokens("B AH b", None) == [2, 3, 2], "tokens of several letters stay whole"
    turkish = form_of(CtcVocabulary(("<pad>", "|", *"Iİ"), 0, "|"), False)
    assert turkish.tokens("ıi I", "tr") == [2, 3, 1, 2]


@pytest.mark.parametrize("prompt", ["hello hello hello hello hello", "谢谢谢谢谢谢谢谢", "go on go on go on go on"])
def test_a_prompt_that_repeats_itself_is_refused(whisper: Path, prompt: str) -> None:
    checkpoint = find_checkpoint(ModelConfig(model=str(whisper)), {})
    check_options(checkpoint, "w", TranscriptConfig(prompt="Mr. Smith said hello, hello."))
    with pytest.raises(ModelError, match="says the same more than 3 times in a row"):
        check_options(checkpoint, "w", TranscriptConfig(prompt=prompt))


def test_a_whisper_folder_without_its_vocabulary_is_one_error(whisper: Path, tmp_path: Path) -> None:
    for path in whisper.iterdir():
        if path.name not in ("tokenizer.json", "vocab.json", "vocabulary.txt", "vocabulary.json", "merges.txt"):
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(ModelError, match=r"no tokenizer; expected tokenizer\.json"):
        check_options(find_checkpoint(ModelConfig(model=str(tmp_path)), {}), "w", TranscriptConfig())
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizer cannot be read"):
        check_options(find_checkpoint(ModelConfig(model=str(tmp_path)), {}), "w", TranscriptConfig())


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        *(("en", "don't stop", f"don{sign}t stop") for sign in "\u2019\u2018\u02bc\u00b4`\uff07\u2032"),
        *(("uk", "п'ять", f"п{sign}ять") for sign in "\u2019\u02bc"),
        ("uz", "o'zbek", "o\u02bbzbek"),
        ("en", "hello world", "hel\u00adlo \ufeffworld\u200b"),
        ("ar", "مرحبا", "\u200fمرحبا\u200e"),
        ("en", "wait-- what...", "wait\u2014 what\u2026"),
        ("eng", "he's here", "he is here"),
    ],
)
def test_one_sign_stands_for_all_that_look_like_it(language: str, one: str, other: str) -> None:
    assert score_pair(one, other, language)[0].rate == 0


def test_less_than_is_no_tag_in_english() -> None:
    assert units_of("x < 5 and y > 3", "en") == ["x", "5", "and", "y", "3"]
    assert units_of("so <noise> it is", "en") == ["so", "it", "is"]
