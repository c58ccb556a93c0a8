"""Chat rendering: history is never tokenised again, and each template's habits are met."""

from __future__ import annotations

import pytest

from emoprobe.errors import UserError
from emoprobe.model.chat import Chat
from emoprobe.records import Message
from tests.model import tiny


@pytest.fixture(scope="module", params=["gemma", "qwen"])
def chat(request):
    make = tiny.gemma_tokenizer if request.param == "gemma" else tiny.qwen_tokenizer
    return Chat(make(), request.param)


def talk(chat, replies, questions, system=None):
    """Ids and spans as a rollout makes them, replies given as text; every reply ends by itself."""
    ids, spans = map(list, chat.opening(system, questions[0]))
    for turn, reply in enumerate(replies, start=1):
        ids += chat.encode(reply)
        if turn < len(questions):
            rendered = chat.next_turn(questions[turn])
            spans += rendered.spans(turn + 1, len(ids))
            ids += rendered.ids
        else:
            ids.append(chat.end_of_turn)
    return ids, spans


def messages(replies, questions):
    return [
        Message(role=role, content=text)
        for pair in zip(questions, replies, strict=True)
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


QUESTIONS = ["Make 24 from 3, 3, 8 and 8.", "That is wrong.\nTry again. 😀", "Okay."]
REPLIES = ["8 / (3 - 8 / 3) = 24.", "I am sorry, I keep failing.", "Fine."]


@pytest.mark.parametrize("system", [None, "Answer calmly."])
def test_turn_by_turn_gives_the_ids_of_a_full_render_of_plain_text(chat, system):
    ids, _ = talk(chat, REPLIES, QUESTIONS, system)
    again = chat.rerender(messages(REPLIES, QUESTIONS), system)
    assert again[: len(ids)] == ids
    record = chat.compare(ids, messages(REPLIES, QUESTIONS), system)
    assert record.equal
    assert record.first_difference is None
    assert record.n_rerendered == len(again)


@pytest.mark.parametrize("system", [None, "Answer calmly."])
def test_spans_decode_to_their_text(chat, system):
    ids, spans = talk(chat, REPLIES, QUESTIONS, system)
    said = {(s.turn, s.role, s.kind): chat.decode(ids[s.start : s.stop]) for s in spans}
    assert [said[t, "user", "content"] for t in (1, 2, 3)] == QUESTIONS
    marker = chat.decode([chat.end_of_turn])
    for turn in (1, 2, 3):
        assert said[turn, "user", "end"] == f"{marker}\n"
        assert said[turn, "assistant", "header"].endswith(("model\n", "assistant\n"))
        assert said[turn, "user", "header"].endswith(
            "user\n" if turn > 1 or not system or chat.name == "qwen" else f"user\n{system}\n\n"
        )
    assert said[1, "assistant", "end"] == said[2, "assistant", "end"] == f"{marker}\n"
    header = next(s for s in spans if (s.turn, s.role, s.kind) == (1, "assistant", "header"))
    assert ids[header.stop : header.stop + 3] == chat.encode(REPLIES[0])[:3]


def test_as_many_bos_as_the_template_gives(chat):
    ids, _ = talk(chat, REPLIES, QUESTIONS)
    bos = chat.tokenizer.bos_token_id
    assert (bos is None) == (chat.name == "qwen")
    if bos is not None:
        assert ids.count(bos) == 1
        assert ids[0] == bos
        assert chat.rerender(messages(REPLIES, QUESTIONS)).count(bos) == 1


@pytest.mark.parametrize("method", ["opening", "next_turn"])
def test_a_second_bos_in_a_message_is_refused(method):
    chat = Chat(tiny.gemma_tokenizer())
    with pytest.raises(UserError, match="<bos>"):
        chat.opening(None, "a <bos> b") if method == "opening" else chat.next_turn("a <bos> b")


def test_a_reply_that_the_template_would_trim_stays_as_generated():
    chat = Chat(tiny.gemma_tokenizer())
    replies = ["  spaced out \n\n", "fine"]
    ids, _ = talk(chat, replies, QUESTIONS[:2])
    start = len(chat.opening(None, QUESTIONS[0])[0])
    assert chat.decode(ids[start:]).startswith("  spaced out \n\n<end_of_turn>")
    record = chat.compare(ids, messages(replies, QUESTIONS[:2]))
    assert not record.equal
    assert record.first_difference == start


def test_thinking_that_the_template_would_strip_stays_as_generated():
    chat = Chat(tiny.qwen_tokenizer())
    replies = ["<think>\nhard\n</think>\n\n24", "fine"]
    ids, _ = talk(chat, replies, QUESTIONS[:2])
    assert chat.tokenizer.convert_tokens_to_ids("<think>") in ids
    record = chat.compare(ids, messages(replies, QUESTIONS[:2]))
    assert not record.equal
    assert record.first_difference == len(chat.opening(None, QUESTIONS[0])[0])


def test_a_template_that_fills_in_thinking_for_the_last_reply_is_continued_as_history():
    """Qwen3's own template writes an empty thought before the last reply, and takes it out again later."""
    tokenizer = tiny.qwen_tokenizer()
    tokenizer.chat_template = tiny.QWEN_TEMPLATE.replace(
        "{{ '<|im_start|>' + m['role'] + '\n' + text",
        "{{ '<|im_start|>' + m['role'] + '\n' + ('<think>\n\n</think>\n\n' if loop.last and "
        "m['role'] == 'assistant' else '') + text",
    )
    chat = Chat(tokenizer)
    assert chat.decode(chat.next_turn("Again.").ids) == (
        "<|im_end|>\n<|im_start|>user\nAgain.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_user_text_is_trimmed_only_where_the_template_trims_it(chat):
    ids, spans = chat.opening(None, "  a  ")
    content = next(s for s in spans if s.kind == "content")
    assert chat.decode(ids[content.start : content.stop]) == ("a" if chat.name == "gemma" else "  a  ")


def test_a_token_over_a_seam_is_cut_so_that_spans_decode():
    """A user text that begins with a newline would merge with the header's newline in some vocabularies."""
    chat = Chat(tiny.qwen_tokenizer())
    ids, spans = chat.opening(None, "\n\nMake 24.")
    said = [chat.decode(ids[s.start : s.stop]) for s in spans]
    assert said[:3] == ["<|im_start|>user\n", "\n\nMake 24.", "<|im_end|>\n"]


def test_user_text_that_repeats_the_stand_ins_is_rendered(chat):
    text = "emoprobe-first-question emoprobe-first-reply emoprobe-second-question"
    rendered = chat.next_turn(text)
    spans = rendered.spans(2, 0)
    content = next(s for s in spans if s.kind == "content")
    assert chat.decode(rendered.ids[content.start : content.stop]) == text
    ids, spans = chat.opening(text, text)
    content = next(s for s in spans if s.kind == "content")
    assert chat.decode(ids[content.start : content.stop]) == text


def test_no_chat_template_is_refused_in_one_line():
    tokenizer = tiny.qwen_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        Chat(tokenizer, "gpt2")


def test_a_template_that_refuses_system_messages_says_so():
    tokenizer = tiny.gemma_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}" + tiny.GEMMA_TEMPLATE
    )
    chat = Chat(tokenizer, "gemma-2")
    assert chat.opening(None, "a")
    with pytest.raises(UserError, match="refuses a system message: System role not supported"):
        chat.opening("calm", "a")


def test_a_template_that_drops_history_is_refused():
    tokenizer = tiny.gemma_tokenizer()
    tokenizer.chat_template = (
        "{{ bos_token }}<start_of_turn>user\n{{ messages[-1]['content'] }}<end_of_turn>\n"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    )
    with pytest.raises(UserError, match="leaves replies out of the history"):
        Chat(tokenizer).next_turn("again")


def test_a_cut_reply_is_compared_without_its_missing_marker(chat):
    ids, _ = chat.opening(None, "Make 24.")
    cut = [*ids, *chat.encode("I am sor")]
    said = [Message(role="user", content="Make 24."), Message(role="assistant", content="I am sor")]
    assert chat.compare(cut, said).equal
    assert not chat.compare([*cut, chat.end_of_turn, chat.end_of_turn], said).equal
    assert not chat.compare(cut[:-1], said).equal
