"""Encodings that are guessed, and texts that were decoded wrongly before: repaired when they were, and never touched when they were not."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.corpus import text as t

SAMPLES = {
    "de": "Die Straße führte über den Hügel, und die Mädchen grüßten die Männer, die müde zurückkehrten. „Schöne Grüße“ – sagte Ömer.",
    "fr": "L’été dernier, à la plage, nous avons mangé des crêpes ; « Noël dormait déjà », disait-il, jusqu’à « l’hôtel » où Â était écrit.",
    "es": "El niño soñó que la montaña hablaba español; ¿qué dirá mañana el señor Muñoz? ¡Así se acabó la canción!",
    "pt": "A avó não quis vir à estação; ficou em casa com as irmãs e os cães, e São João passou sem balões. ÀS TRÊS HORAS, NÃO!",
    "ro": "Știm că într-o zi țara va înflori; „să fie”, spuse el.",
    "pl": "Wieczorem poszliśmy nad rzekę, gdzie starzy ludzie opowiadali, jak budowano most; żółta łódź płynęła pod wiązami.",
    "cs": "Večer jsme šli k řece, kde staří lidé vyprávěli, jak se stavěl most; žluťoučký kůň úpěl ďábelské ódy.",
    "hu": "Árvíztűrő tükörfúrógép, és az öreg híd fölött őszi köd ült.",
    "tr": "Akşam nehir kıyısına gittik; yaşlılar eski köprünün nasıl yapıldığını anlatıyor, çocuklar şarkı söylüyordu.",
    "vi": "Chúng tôi đi dạo bên bờ sông vào buổi sáng và gặp một người bạn cũ trên cây cầu gỗ.",
    "is": "Það var kalt þegar við gengum yfir brúna, og áin söng æ hærra undir ísnum.",
    "ru": "Вечером мы пошли на берег реки, где старики рассказывали о прежних временах. РОССИЯ, СССР, РСФСР.",
    "uk": "Їхній ґанок стояв біля річки, і є що згадати.",
    "el": "Το βράδυ πήγαμε στο ποτάμι, όπου οι γέροι διηγούνταν πώς χτίστηκε η παλιά γέφυρα.",
    "he": "בערב הלכנו לגדת הנהר, שם סיפרו הזקנים איך נבנה הגשר הישן והילדים שרו שירים.",
    "ar": "ذهبنا مساء إلى ضفة النهر حيث كان الشيوخ يحكون كيف بني الجسر القديم وكان الأطفال يغنون.",
    "hi": "शाम को हम नदी के किनारे गए, जहाँ बूढ़े लोग पुराने पुल की कहानी सुना रहे थे।",
    "th": "เมื่อวานนี้เราไปที่แม่น้ำและพบเพื่อนเก่าบนสะพานไม้",
    "zh": "今天天气很好，我们早上沿着河边散步，在老桥上遇见了一位朋友，谈起了面包和音乐。",
    "ja": "今日は天気がよいので、朝から川のそばを散歩しました。「古い橋」の上で友だちに会い、パンと音楽の話をしました。",
    "ko": "오늘은 날씨가 좋아서 아침에 강가를 걸었습니다. 오래된 다리 위에서 친구를 만나 빵과 음악 이야기를 했습니다.",
    "math": "Für α ≤ β gilt ∑ xᵢ² ≥ 0; 25 °C ± 3 µm × 10⁻³ – “quoted”… £5, €7, ¥9 §3 ¶ © ® ™",
    "emoji": "Smile 😀 and family 👨‍👩‍👧, flags 🇩🇪 and café ☕.",
    "shouts": "ÃO, ÂNGELA! ÉÉÉ ÑÑÑ ÜBER ÄÖÜ ÅÄÖ Ð Þ ÆØÅ",
}


@pytest.mark.parametrize("name", SAMPLES)
def test_repair_when_text_is_good_then_it_is_not_touched(name: str) -> None:
    text = t.normalise(SAMPLES[name])
    assert t.repair(text) is None
    assert t.repair(text.upper()) is None


@pytest.mark.parametrize("codec", ["cp1252", "latin-1"])
@pytest.mark.parametrize("name", ["de", "fr", "es", "pl", "ru", "el", "zh", "ja", "ko", "emoji", "tr"])
def test_repair_when_utf8_was_read_as_another_then_the_text_is_whole_again(name: str, codec: str) -> None:
    text = t.normalise(SAMPLES[name])
    wrong = "".join(
        bytes([byte]).decode(codec) if codec == "latin-1" or byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else chr(byte)
        for byte in text.encode()
    )
    # U+0085 is a line end to some and NBSP a space, so the stored form may have lost one; what is left must be right.
    repaired = t.repair(t.normalise(wrong))
    assert repaired is not None
    same = sum(a == b for a, b in zip(repaired.split(), text.split(), strict=False))
    assert same >= 0.8 * len(text.split()) or repaired == text


def test_repair_when_russian_was_read_as_windows_1251_then_it_is_whole_again() -> None:
    text = "Вечером мы пошли на берег реки."
    wrong = text.encode().decode("cp1251", "replace")
    assert "\ufffd" in wrong or t.repair(wrong) == text
    assert t.repair("Мост стоит.".encode().decode("cp1251")) == "Мост стоит."


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(sorted({word for sample in SAMPLES.values() for word in sample.split()})),
        min_size=1,
        max_size=30,
    )
)
def test_repair_when_good_words_are_mixed_then_nothing_is_touched(words: list[str]) -> None:
    assert t.repair(t.normalise(" ".join(words))) is None


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_repair_when_done_twice_then_the_second_changes_nothing(value: str) -> None:
    once = t.repair(t.normalise(value)) or t.normalise(value)
    assert t.normalise(once) == once


ENCODINGS = [
    ("de", "cp1252"), ("fr", "cp1252"), ("es", "latin-1"), ("ru", "cp1251"), ("ru", "koi8-r"), ("ru", "cp866"), ("ja", "shift_jis"), ("ja", "euc-jp"),
    ("zh", "gb18030"), ("zh", "big5"), ("ko", "euc-kr"), ("pl", "cp1250"), ("pl", "iso-8859-2"),
    ("cs", "cp1250"), ("el", "cp1253"), ("el", "iso-8859-7"),
    ("tr", "cp1254"), ("ar", "cp1256"), ("he", "cp1255"), ("th", "tis-620"), ("hu", "cp1250"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "codec"), ENCODINGS)
def test_charset_when_old_and_unnamed_then_the_bytes_tell(tmp_path: Path, name: str, codec: str) -> None:
    sentence = {"zh": "今天天氣很好，我們早上沿著河邊散步，在老橋上遇見了一位朋友。"}.get(
        name if codec == "big5" else "", SAMPLES[name]
    )
    raw = sentence.encode(codec, "ignore")
    (tmp_path / "a.txt").write_bytes(raw)
    found = t.find_charset(tmp_path / "a.txt")
    assert raw.decode(found.codec, found.errors) == raw.decode(codec)
    assert found.note == f"read as {found.codec}: not valid UTF-8"


def test_charset_when_stated_then_it_is_believed_if_the_bytes_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("один".encode("koi8-r"))
    assert t.find_charset(path, "koi8-r") == t.Charset("koi8-r")
    path.write_bytes("один".encode())
    assert t.find_charset(path, "koi8-r") == t.Charset("utf-8")
    path.write_bytes(b"caf\xe9 au lait, caf\xe9 noir")
    assert t.find_charset(path, "rot13").codec == t.find_charset(path, "no-such").codec == "cp1252"


def test_reading_when_a_text_is_repaired_then_it_is_said(tmp_path: Path) -> None:
    from gptwright.corpus.readers import read_file, summary

    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("Das schöne Café am Fluß".encode().decode("cp1252").encode()))
    reading = read_file(tmp_path / "a.txt.gz")
    assert [record.text for record in reading.records] == ["Das schöne Café am Fluß"]
    assert summary(reading) == "1 text repaired that had been decoded wrongly before"
