"""Kept conversations: found again as they were, one's own only, and gone when deleted."""

from pathlib import Path

from gptwright.core.control import ControlStore
from gptwright.serve.keys import create_key
from gptwright.studio.book import Book, new_id, title_of
from gptwright.studio.tree import ROOT, Tree, Turn


def talk(book: Book, question: str, *answers: str) -> tuple[str, Tree]:
    made = book.begin(question, {"temperature": 0.5})
    tree = Tree()
    asked = Turn(new_id(), ROOT, "user", question)
    tree.add(asked)
    for text in answers:
        tree.add(Turn(new_id(), asked.id, "assistant", text, "m-1", {"ended": "stop"}))
    assert book.keep(made, tree, {"temperature": 0.5}, *(tree[i] for i in tree.siblings(asked.id)))
    assert book.keep(made, tree, {"temperature": 0.5}, *(tree[i] for i in tree.siblings(tree.path()[-1].id)))
    return made, tree


def test_conversation_when_kept_then_it_comes_back_with_branches_settings_and_what_was_shown(
    control: ControlStore,
) -> None:
    book = Book(control)
    made, tree = talk(book, "What is it?", "This.", "That.")
    tree.step(tree.path()[-1].id, -1)
    assert book.keep(made, tree, {"temperature": 0.9})
    kept = Book(control).load(made)
    assert kept is not None
    assert kept.tree.path() == tree.path()
    assert kept.tree.path()[-1].text == "This."
    assert kept.tree.siblings(kept.tree.path()[-1].id) == tree.siblings(tree.path()[-1].id)
    assert kept.settings == {"temperature": 0.9}
    assert kept.entry.title == "What is it?"


def test_entries_when_searched_then_all_words_must_be_there_in_any_case_and_signs_are_no_patterns(
    control: ControlStore,
) -> None:
    book = Book(control)
    first, _ = talk(book, "Bread and Grüße", "Flour, water. ÜBUNG")
    second, _ = talk(book, "Cheese 100%", "Milk.")
    assert [entry.id for entry in book.entries()] == [second, first]
    for words, found in (
        ("bread", [first]),
        ("FLOUR water", [first]),
        ("flour milk", []),
        ("grüße", [first]),
        ("übung", [first]),
        ("100%", [second]),
        ("%", [second]),
        ("_", []),
        ("  ", [second, first]),
    ):
        assert [entry.id for entry in book.entries(words)] == found, words
    book.rename(first, "  Loaf ")
    book.rename(second, " ")
    assert [entry.title for entry in book.entries()] == ["Cheese 100%", "Loaf"]


def test_book_when_it_is_another_keys_then_nothing_of_it_can_be_seen_or_changed(control: ControlStore) -> None:
    owners = [None, create_key(control, "ann")[1].id, create_key(control, "bob")[1].id]
    books = [Book(control, owner) for owner in owners]
    made = [talk(book, f"secret {number}", "x")[0] for number, book in enumerate(books)]
    for number, book in enumerate(books):
        assert [entry.id for entry in book.entries("secret")] == [made[number]]
        for other in {*made} - {made[number]}:
            assert book.load(other) is None
            assert not book.keep(other, Tree(), {})
            book.rename(other, "mine now")
            book.delete(other)
    books[1].delete_all()
    assert [len(book.entries("secret")) for book in books] == [1, 0, 1]


def test_delete_when_done_then_no_byte_of_it_is_left_and_it_does_not_come_back(
    control: ControlStore, tmp_path: Path
) -> None:
    book = Book(control)
    made, tree = talk(book, "unmistakable-title", *(f"unmistakable-answer {n} " * 400 for n in range(3)))
    talk(book, "another", "stays")
    files = [tmp_path / name for name in ("control.sqlite", "control.sqlite-wal")]
    in_a_file = control.engine.dialect.name == "sqlite"  # a server's files are not ours to look at

    def holds() -> bool:
        return any(path.exists() and b"unmistakable" in path.read_bytes() for path in files)

    assert holds() == in_a_file
    book.delete(made)
    assert not holds()
    assert not book.keep(made, tree, {}, tree.path()[-1])  # a tab that still shows it
    assert book.load(made) is None
    assert not holds()
    assert [entry.title for entry in book.entries()] == ["another"]


def test_book_when_there_is_no_store_then_it_keeps_nothing_and_says_so() -> None:
    book = Book(None)
    made, _ = talk(book, "hello", "x")
    assert (book.keeps, book.entries(), book.load(made)) == (False, [], None)
    book.rename(made, "x")
    book.delete_all()


def test_title_when_the_question_is_long_or_has_lines_then_it_is_one_short_line() -> None:
    assert title_of("  a\n b ") == "a b"
    assert len(title_of("word " * 100)) <= 80
    assert title_of("word " * 100).endswith("…")
