"""Conversations and texts, told by the shape of a record."""

import pytest

from gptwright.corpus.shapes import Chat, Fault, Plain, read_record, records

PAIR = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": PAIR},
        PAIR,
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        {"instruction": "Hi", "input": "", "output": "Hello"},
        {"prompt": "Hi", "response": "Hello"},
        {"question": "Hi", "answer": "Hello"},
        {"Prompt": "Hi", "Completion": "Hello"},
        {"dialog": ["Hi", "Hello"]},
        ["Hi", "Hello"],
        {
            "messages": [
                {"role": "human", "content": [{"type": "text", "text": "Hi"}]},
                {"role": "bot", "content": "Hello"},
            ]
        },
        {"messages": [[{"text": "Hi", "sender": "a1"}], [{"text": "Hello", "sender": "b2"}]]},
        {
            "turns": [
                {"speaker": "Ann", "text": " Hi "},
                {"speaker": "Bob", "text": ""},
                {"speaker": "Bob", "text": "Hello"},
            ]
        },
        {"messages": '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]'},
    ],
)
def test_record_when_it_is_a_conversation_of_any_shape_then_roles_are_normal(record: object) -> None:
    found = read_record(record)
    assert isinstance(found, Chat)
    assert found.messages == PAIR


def test_record_when_one_speaker_talks_twice_then_messages_are_merged() -> None:
    found = read_record(
        {"messages": [PAIR[0], {"role": "user", "content": " def f():\n    return '&lt;' \n"}, PAIR[1]]}
    )
    assert isinstance(found, Chat)
    assert found.messages[0]["content"] == "Hi\ndef f():\n    return '&lt;'"


def test_record_when_people_talk_then_html_entities_are_unescaped() -> None:
    found = read_record({"dialog": ["you &amp; me", "it&#39;s &lt;3"]})
    assert isinstance(found, Chat)
    assert [m["content"] for m in found.messages] == ["you & me", "it's <3"]


def test_record_when_a_message_was_sent_twice_then_it_is_there_once() -> None:
    found = read_record({"messages": [PAIR[0], PAIR[1], PAIR[1]]})
    assert isinstance(found, Chat)
    assert found.messages == PAIR


def test_record_when_alpaca_has_an_input_then_it_follows_the_instruction() -> None:
    found = read_record({"instruction": "Add", "input": "1 2", "output": "3", "system": "Be terse"})
    assert isinstance(found, Chat)
    assert [m["role"] for m in found.messages] == ["system", "user", "assistant"]
    assert found.messages[1]["content"] == "Add\n\n1 2"


def test_record_when_two_people_answer_a_topic_then_it_opens_as_the_question() -> None:
    turns = [[{"text": "I would travel the world", "sender": "a"}], [{"text": "Where to?", "sender": "b"}]]
    found = read_record({"messages": turns, "prompt": "What would you do?"})
    assert isinstance(found, Chat)
    assert [(m["role"], m["content"]) for m in found.messages] == [
        ("user", "What would you do?"),
        ("assistant", "I would travel the world"),
        ("user", "Where to?"),
    ]


def test_record_when_they_greet_instead_then_the_topic_stays_out() -> None:
    turns = [[{"text": "hey how are you doing", "sender": "a"}], [{"text": "fine", "sender": "b"}]]
    found = read_record({"messages": turns, "prompt": "What would you do?"})
    assert isinstance(found, Chat)
    assert found.messages[0] == {"role": "user", "content": "hey how are you doing"}


def test_record_when_nobody_answers_then_waiting_is_no_text() -> None:
    found = read_record({"messages": [{"text": "Hello?", "sender": "a"}, {"text": "anybody there?", "sender": "a"}]})
    assert found == Chat([])


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"messages": [{"role": "wizard", "content": "x"}, PAIR[0]]}, "unknown role 'wizard'"),
        ({"messages": [{"content": "x"}]}, "message 1 has no role"),
        ({"messages": ["x", 3]}, "message 1 is a text"),
        ({"instruction": 3, "output": "x"}, "instruction is a number"),
        ({"foo": 1, "bar": 2}, "its keys are foo, bar"),
        (3, "expected an object"),
        ({"messages": [{"sender": s, "text": "x"} for s in "abc"]}, "3 people"),
    ],
)
def test_record_when_it_is_broken_then_the_fault_says_where(record: object, words: str) -> None:
    with pytest.raises(Fault, match=words):
        read_record(record)


def test_record_when_it_has_text_then_title_and_url_come_along() -> None:
    assert read_record({"text": "Body", "title": "T", "url": "u"}) == Plain("Body", "T", "u")


@pytest.mark.parametrize(
    ("value", "suffixes"),
    [
        ([{"text": "a"}, {"text": "b"}], ["row=1", "row=2"]),
        (["a", "b"], ["row=1", "row=2"]),
        ({"x1": {"text": "a"}, "x2": {"text": "b"}}, ["key=x1", "key=x2"]),
        ({"categories": ["c"], "conversations": [["a", "b"], ["c", "d"]]}, ["row=1", "row=2"]),
        ({"conversations": [["a", "b"], "alone"]}, ["row=1", "row=2"]),
        ({"version": 1, "data": [{"text": "a"}]}, ["row=1"]),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, [""]),
        (PAIR, [""]),
        ({"messages": PAIR}, [""]),
        ({"messages": [[{"text": "a", "sender": "x"}]]}, [""]),
    ],
)
def test_walk_when_records_are_nested_then_each_has_its_place(value: object, suffixes: list[str]) -> None:
    assert [suffix for suffix, _ in records(value)] == suffixes
