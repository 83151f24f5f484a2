"""From samples to token spans: context, response, and where the loss begins."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from influcoder_lib.errors import SettingsError
from influcoder_lib.samples import Sample
from influcoder_lib.target_model import TargetModel

_PROBE = "\u2042"


@dataclass(frozen=True)
class Span:
    """Token ids of one sample; the loss covers `ids[loss_start:]`, never empty if usable.

    `prompt_cut` and `response_cut` count the tokens that the window left no room for.
    """

    ids: list[int]
    loss_start: int
    prompt_cut: int
    response_cut: int
    response_tokens: int

    @property
    def usable(self) -> bool:
        """Whether the response has at least one token of its own."""
        return self.response_tokens > 0

    @property
    def truncated(self) -> bool:
        """Whether anything was cut to fit the window."""
        return self.prompt_cut + self.response_cut > 0


class SpanEncoder:
    """Tokenises samples for one target model and window.

    Context is the tokenizer's chat template without the system message that some templates add,
    or `prompt` and a newline where there is no template. The response, with end-of-sequence
    appended, keeps at most half the window; the context is cut from its head to fit the rest.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, window: int) -> None:
        self.tokenizer = tokenizer
        self.window = window
        self._has_template = bool(tokenizer.chat_template)
        self._start = _start_tokens(tokenizer)

    def context(self, prompt: str) -> str:
        """Text before the response, without the start-of-sequence token."""
        if not self._has_template:
            return f"{prompt}\n"
        # Found anew each time: some templates add a message with today's date.
        added = _added_by_template(self.tokenizer)
        text = _render(self.tokenizer, [("user", prompt)], reply=True).removeprefix(added)
        return text.removeprefix(str(self.tokenizer.bos_token)) if self._start else text

    def encode(self, samples: Sequence[Sample]) -> list[Span]:
        """Spans of the samples, in their order."""
        if not samples:
            return []
        contexts = self._tokens([self.context(sample.prompt) for sample in samples])
        responses = self._tokens([sample.response for sample in samples])
        return [
            self._fit(context, response)
            for context, response in zip(contexts, responses, strict=True)
        ]

    def _fit(self, context: list[int], response: list[int]) -> Span:
        eos = self.tokenizer.eos_token_id
        target = response if eos is None else [*response, eos]
        kept_target = target[: max(1, self.window // 2)]
        room = self.window - len(kept_target) - len(self._start)
        kept_context = context[max(0, len(context) - room) :] if room > 0 else []
        head = [*self._start, *kept_context]
        return Span(
            ids=[*head, *kept_target],
            loss_start=len(head),
            prompt_cut=len(context) - len(kept_context),
            response_cut=len(target) - len(kept_target),
            response_tokens=len(response),
        )

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


def span_encoder(target: TargetModel, window: int) -> SpanEncoder:
    """The encoder of a target model's spans.

    Raises:
        SettingsError: the window has more tokens than the model has places for.
    """
    places = target.positions()
    if places is not None and window > places:
        raise SettingsError(
            f"The target model cannot read {window} tokens.",
            where="target_model.window",
            allowed=f"at most {places} tokens, the rows of its position table",
        )
    return SpanEncoder(target.tokenizer, window)


def _render(tokenizer: PreTrainedTokenizerBase, turns: list[tuple[str, str]], reply: bool) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=reply))


def _added_by_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Text a chat template puts before the first turn but not before a later one.

    A start-of-sequence token in it goes as well: `_start_tokens` puts it back.
    """
    opening = [("user", _PROBE), ("assistant", _PROBE)]
    before = _render(tokenizer, opening, reply=False)
    turn = _render(tokenizer, [*opening, ("user", _PROBE)], reply=False).removeprefix(before)
    alone = _render(tokenizer, [("user", _PROBE)], reply=False)
    return alone.removesuffix(turn) if alone.endswith(turn) else ""


def _start_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The start-of-sequence token, if the tokenizer adds it or the template writes it, once."""
    bos = tokenizer.bos_token_id
    if bos is None:
        return []
    added = tokenizer("a", verbose=False)["input_ids"][:1] == [bos]
    return [bos] if added or _writes_start(tokenizer, str(tokenizer.bos_token)) else []


def _writes_start(tokenizer: PreTrainedTokenizerBase, bos: str) -> bool:
    # Some templates open every turn with this token; then it is no start of a sequence.
    if not tokenizer.chat_template:
        return False
    turns = [("user", _PROBE), ("assistant", _PROBE), ("user", _PROBE)]
    text = _render(tokenizer, turns, reply=False)
    return text.startswith(bos) and text.count(bos) == 1
