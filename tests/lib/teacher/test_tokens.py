"""Token spans: what is context, what is loss, and what is cut."""

from datetime import datetime, timedelta

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from influcoder_lib.errors import SettingsError
from influcoder_lib.samples import Sample
from influcoder_lib.target_model import load_target
from influcoder_lib.teacher.tokens import Span, SpanEncoder, span_encoder
from tests.tiny import (
    ARCHITECTURES,
    CHARACTERS,
    CHATML,
    CHATML_WITH_SYSTEM,
    POSITIONS,
    tiny_target,
    tiny_tokenizer,
)

BOS, EOS = "<s>", "</s>"
WRITES_BOS = "{{ bos_token }}" + CHATML
ALTERNATING = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{% if loop.first %}first: {% else %}, then: {% endif %}"
    "{{ message['content'] }}{% else %} it says: {{ message['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %} it says: {% endif %}"
)
TEMPLATES = {
    "none": None,
    "chatml": CHATML,
    "system": CHATML_WITH_SYSTEM,
    "bos": WRITES_BOS,
    "alternating": ALTERNATING,
}
TOKENIZERS = {
    (name, adds): tiny_tokenizer(template, adds_bos=adds)
    for name, template in TEMPLATES.items()
    for adds in (False, True)
}
kinds = pytest.mark.parametrize("adds_bos", [False, True], ids=["plain", "adds bos"])
texts = st.text(CHARACTERS + "É世", max_size=40)


def encode(tokenizer: PreTrainedTokenizerFast, window: int, prompt: str, response: str) -> Span:
    return SpanEncoder(tokenizer, window).encode([Sample("0" * 32, prompt, response)])[0]


def words(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return "".join(tokenizer.convert_ids_to_tokens(ids))


def parts(tokenizer: PreTrainedTokenizerFast, span: Span) -> tuple[str, str]:
    """What stands before the loss, and what is in it."""
    return (
        words(tokenizer, span.ids[: span.loss_start]),
        words(tokenizer, span.ids[span.loss_start :]),
    )


@given(st.sampled_from(sorted(TOKENIZERS)), st.integers(2, 90), texts, texts.filter(bool))
def test_the_loss_span_survives_every_truncation(kind, window, prompt, response):
    tokenizer = TOKENIZERS[kind]
    span = encode(tokenizer, window, prompt, response)
    assert span.usable
    assert len(span.ids) <= window
    loss = span.ids[span.loss_start :]
    whole = [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert loss == whole[: max(1, window // 2)]
    assert span.response_cut == len(whole) - len(loss)
    assert span.response_tokens == len(whole) - 1
    roomy = encode(tokenizer, 10_000, prompt, response)
    context, kept = roomy.ids[: roomy.loss_start], span.ids[: span.loss_start]
    starts = int(context[0] == tokenizer.bos_token_id)
    assert kept[:starts] == context[:starts]
    assert context[starts:][len(context) - starts - (len(kept) - starts) :] == kept[starts:]
    assert span.prompt_cut == len(context) - len(kept)
    assert span.truncated == (span.prompt_cut + span.response_cut > 0)
    if span.prompt_cut:
        assert len(span.ids) == window


@given(st.sampled_from(sorted(TOKENIZERS)), st.lists(st.tuples(texts, texts), max_size=6))
def test_samples_are_encoded_one_as_the_other(kind, pairs):
    spans = SpanEncoder(TOKENIZERS[kind], 30)
    samples = [Sample("0" * 32, prompt, response) for prompt, response in pairs]
    assert spans.encode(samples) == [spans.encode([sample])[0] for sample in samples]


def test_a_response_without_tokens_is_not_usable():
    span = encode(tiny_tokenizer(), 30, "a prompt", "")
    assert not span.usable
    assert span.response_tokens == 0


def test_a_window_cuts_the_prompt_at_its_head_and_the_response_at_its_end():
    tokenizer = tiny_tokenizer()
    span = encode(tokenizer, 10, "abcdefgh", "12345678")
    assert parts(tokenizer, span) == ("efgh\n", "12345")
    assert (span.prompt_cut, span.response_cut) == (4, 4)


def test_a_short_response_leaves_its_room_to_the_prompt():
    tokenizer = tiny_tokenizer()
    span = encode(tokenizer, 10, "abcdefgh", "1")
    assert parts(tokenizer, span) == ("bcdefgh\n", "1" + EOS)
    assert (span.prompt_cut, span.response_cut) == (1, 0)


def test_the_start_token_stays_when_the_prompt_is_cut():
    tokenizer = tiny_tokenizer(adds_bos=True)
    span = encode(tokenizer, 10, "abcdefgh", "12345678")
    assert parts(tokenizer, span) == (BOS + "fgh\n", "12345")


@kinds
def test_without_a_template_the_prompt_and_a_newline_are_the_context(adds_bos):
    tokenizer = tiny_tokenizer(adds_bos=adds_bos)
    span = encode(tokenizer, 100, "a prompt", "yes")
    assert parts(tokenizer, span) == ((BOS if adds_bos else "") + "a prompt\n", "yes" + EOS)


@kinds
@pytest.mark.parametrize("template", [CHATML, CHATML_WITH_SYSTEM], ids=["chatml", "system"])
def test_the_template_frames_the_prompt_without_a_system_message(template, adds_bos):
    tokenizer = tiny_tokenizer(template, adds_bos=adds_bos)
    span = encode(tokenizer, 200, "a prompt", "yes")
    framed = "<|im_start|>user\na prompt<|im_end|>\n<|im_start|>assistant\n"
    assert parts(tokenizer, span) == ((BOS if adds_bos else "") + framed, "yes" + EOS)


@kinds
def test_a_start_token_written_by_the_template_is_there_once(adds_bos):
    tokenizer = tiny_tokenizer(WRITES_BOS, adds_bos=adds_bos)
    span = encode(tokenizer, 200, "a prompt", "yes")
    framed = "<s><|im_start|>user\na prompt<|im_end|>\n<|im_start|>assistant\n"
    assert parts(tokenizer, span) == (framed, "yes" + EOS)


@kinds
def test_a_template_that_opens_the_first_turn_in_its_own_way_keeps_it(adds_bos):
    tokenizer = tiny_tokenizer(ALTERNATING, adds_bos=adds_bos)
    span = encode(tokenizer, 200, "a prompt", "yes")
    assert parts(tokenizer, span) == ("<s>first: a prompt it says: ", "yes" + EOS)


def test_a_token_that_opens_every_turn_is_no_start_token():
    tokenizer = tiny_tokenizer(CHATML_WITH_SYSTEM)
    tokenizer.bos_token = "<|im_start|>"
    span = encode(tokenizer, 200, "a prompt", "yes")
    framed = "<|im_start|>user\na prompt<|im_end|>\n<|im_start|>assistant\n"
    assert parts(tokenizer, span) == (framed, "yes" + EOS)


def test_a_system_message_that_says_todays_date_is_left_out_tomorrow_too(monkeypatch):
    class Clock(datetime):
        today = datetime(2026, 11, 26, 23, 59)

        @classmethod
        def now(cls, tz=None):
            return cls.today

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    dated = "<|im_start|>system\n{{ strftime_now('%d %b %Y') }}<|im_end|>\n" + CHATML
    spans = SpanEncoder(tiny_tokenizer(dated), 200)
    before = spans.encode([Sample("0" * 32, "a prompt", "yes")])
    Clock.today += timedelta(minutes=2)
    assert spans.encode([Sample("0" * 32, "a prompt", "yes")]) == before
    assert "system" not in spans.context("a prompt")


def test_no_end_of_sequence_is_appended_where_there_is_none():
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    assert parts(tokenizer, encode(tokenizer, 100, "p", "yes")) == ("p\n", "yes")


LONG = Sample("0" * 32, "a" * 600, "b" * 600)


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - {"gpt2"}))
def test_places_that_are_computed_allow_any_window(tmp_path, architecture):
    target = load_target(tiny_target(tmp_path, architecture), "float32")
    assert len(span_encoder(target, POSITIONS + 1).encode([LONG])[0].ids) == POSITIONS + 1


@pytest.mark.parametrize("architecture", ["gpt2", "gptj"])
def test_a_window_beyond_a_models_table_of_places_is_an_error(tmp_path, architecture):
    target = load_target(tiny_target(tmp_path, architecture), "float32")
    ids = span_encoder(target, POSITIONS).encode([LONG])[0].ids
    assert torch.isfinite(target.model(torch.tensor([ids])).logits).all()
    with pytest.raises(SettingsError, match=f"cannot read {POSITIONS + 1} tokens") as caught:
        span_encoder(target, POSITIONS + 1)
    assert "target_model.window" in str(caught.value)
    assert f"at most {POSITIONS} tokens" in str(caught.value)
