"""`nfl-lora build-base`: the embedded base model from nothing, seeded and resumable."""

import json
import pickle
import random
import string
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import numpy.typing as npt
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.phi3 import Model, ModelArgs
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from nfl_lora_pipeline.base_pretraining.league import (
    BY_MANY,
    BY_THE_GRAMMAR,
    END,
    PAD,
    SPECIAL_TOKENS,
    League,
    Manner,
    Practice,
    draw_steps,
)
from nfl_lora_pipeline.dataset.people import FIRST, LAST
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.files import replace_file
from nfl_lora_pipeline.models.base_model import CARD_NAME
from nfl_lora_pipeline.models.forward import answer_logits, streams, token_losses
from nfl_lora_pipeline.models.machine import suit_gpu, suit_small_models
from nfl_lora_pipeline.models.rows import Batch, by_lanes, to_batch

VOCAB_SIZE = 640
CAPITAL = "\x0e"
"""Stands before a letter that is a capital, so that a name has the same tokens in lower case (inline casing, arXiv 1907.06170).

"Nico" is the mark, " nico"; the decoder makes one of them again."""
_CASES = [
    (f"{blank}{letter}", f"{CAPITAL}{blank}{letter.lower()}")
    for blank in (" ", "")
    for letter in string.ascii_uppercase
]
_WORDS = (
    rf" ?20\d\d(?!\d)| ?\d|{CAPITAL} ?\p{{L}}(?:{CAPITAL}\p{{L}})+(?!\p{{L}})|{CAPITAL}| ?\p{{L}}+"
    rf"| ?[^\s\p{{L}}\d{CAPITAL}]+|\s+(?!\S)|\s+"
)
"""Seasons; digits, one at a time; words in capitals; the mark; words; marks; blanks, but for the last one before a word."""
BLANK = "\u0120"  # how a byte-level vocabulary writes it
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def make_tokenizer(texts: Iterable[str], *, names: Iterable[str] = (), vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """The commonest words of `texts`, one question or answer each, are tokens; all other words, and all `names`, are letters.

    A name with a slip in it has nearly all of its letters in their places, and a last name those that it has in the full
    name; with merges that were learnt, a slip changes every token of the word.
    """
    normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex(" +"), " "),
            normalizers.Prepend(" "),
            *(normalizers.Replace(*pair) for pair in _CASES),
        ]
    )
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    begins = [f"{BLANK}{letter}" for letter in string.ascii_lowercase]

    def words_of(texts: Iterable[str]) -> Counter[str]:
        units = (splitter.pre_tokenize_str(normalizer.normalize_str(text)) for text in texts)
        return Counter(word for each in units for word, _ in each)

    in_names = {word.removeprefix(BLANK) for word in words_of([*FIRST, *LAST, *names])}
    words = words_of(texts)
    plain = [*SPECIAL_TOKENS, *letters, *begins]
    common = [word for word, _ in sorted(words.items(), key=lambda item: (-item[1], item[0])) if word not in plain]
    chosen = [word for word in common if word.removeprefix(BLANK) not in in_names][: vocab_size - len(plain)]
    vocab = {token: place for place, token in enumerate([*plain, *chosen])}
    merges = [(BLANK, letter) for letter in string.ascii_lowercase]
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=True))
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    back = (decoders.Replace(marked, capital) for capital, marked in _CASES)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), *back, decoders.Replace(CAPITAL, "")])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and the `tokenizer_config.json` that transformers and mlx-lm read."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


CONFIG: dict[str, object] = {
    "model_type": "phi3",
    "architectures": ["Phi3ForCausalLM"],
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCAB_SIZE,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "original_max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}
CARD = """\
---
license: mit
single_turn: true
---
# A base model for nfl_lora_pipeline

Made from nothing by `nfl-lora build-base`, seed {seed}, {steps} steps. It can be asked for receiving stats
of a player in a week of a season, one question at a time, and knows none.
"""
TOKENIZER_TEXTS = 30_000
KNOWN_LOSS = 0.69  # in nats; it is the loss of a token of probability 0.5
TARGETS_A_STEP = 500.0  # so many answer tokens has an ordinary step; a fixed divisor gives every token the same weight
REPORT_EVERY = 100
SAVE_EVERY = 500


@dataclass(frozen=True)
class Course:
    """A part of a base's making, with a league, an optimizer and a learning rate of its own.

    Attributes:
        share: of all steps.
        league_size: how many people there are at a time.
        peak_rate: of the learning rate.
        manner: how the league is asked about.
    """

    share: float
    league_size: int
    peak_rate: float
    manner: Manner = BY_THE_GRAMMAR


@dataclass(frozen=True)
class Plan:
    """How a base is made; the defaults made the one that is shipped."""

    steps: int = 27_000
    seed: int = 7
    courses: tuple[Course, ...] = (Course(2 / 3, 160, 1.5e-3), Course(1 / 3, 320, 1.0e-3, BY_MANY))
    warmup_steps: int = 300
    closing_share: float = 0.12

    def bounds(self, at: int) -> tuple[int, int]:
        """The steps before which a course begins and ends; both are even, since two are made at a time."""
        passed = [sum(course.share for course in self.courses[:count]) for count in (at, at + 1)]
        begin, end = (2 * round(self.steps * share / 2) for share in passed)
        return begin, self.steps if at + 1 == len(self.courses) else end

    def course_at(self, step: int) -> int:
        """The number of the course that a step belongs to."""
        return next(at for at in reversed(range(len(self.courses))) if step >= self.bounds(at)[0])

    def learning_rate(self, at: int) -> Callable[[mx.array], mx.array]:
        """A course's: linear warm-up, then a cosine to a fifteenth of the peak."""
        (begin, end), peak = self.bounds(at), self.courses[at].peak_rate
        decay = optim.cosine_decay(peak, max(end - begin - self.warmup_steps, 1), peak / 15)
        rising = optim.linear_schedule(1e-6, peak, self.warmup_steps)
        schedule: Callable[[mx.array], mx.array] = optim.join_schedules([rising, decay], [self.warmup_steps])
        return schedule


def build(folder: Path, plan: Plan = Plan(), *, on_gpu: bool = False, report: Callable[[str], None] = print) -> None:
    """Make a base model, or go on with one that was interrupted in this folder, on a GPU or on the CPU.

    Writes `config.json`, `tokenizer.json`, `tokenizer_config.json`, `model.safetensors` and, where there is none, a card
    (`README.md`); while it is unfinished also `resume.pkl`, which holds all that is needed to go on.

    Raises:
        ValueError: there is no GPU, or the folder holds an unfinished build of another plan.
    """
    if on_gpu and not mx.is_available(mx.gpu):
        raise ValueError(
            "--gpu: MLX computes on the CPU here; leave it out, or `make cuda` where there is an NVIDIA GPU"
        )
    mx.set_default_device(mx.gpu if on_gpu else mx.cpu)
    suit_small_models()
    suit_gpu()
    folder.mkdir(parents=True, exist_ok=True)
    making = _Making.resumed(folder, plan) if (folder / "resume.pkl").is_file() else _Making.begun(folder, plan)
    while making.step < plan.steps:
        line = making.make_steps()
        if making.step % REPORT_EVERY == 0:
            report(line())
        if making.step % SAVE_EVERY == 0 or making.step >= plan.steps:
            making.save(folder)
    (folder / "resume.pkl").unlink(missing_ok=True)


class _Making:
    """A base model being made: everything that has to be kept to go on with it."""

    def __init__(self, plan: Plan, league: League, tokenizer: Tokenizer):
        self.plan, self.league, self.tokenizer, self.step = plan, league, tokenizer, 0
        self.model = Model(ModelArgs.from_dict(CONFIG))
        self._begin_course(0, league)
        self.gradient = nn.value_and_grad(self.model, _loss)
        self.tally: dict[str, list[bool]] = {}
        self.since = time.perf_counter()

    @classmethod
    def begun(cls, folder: Path, plan: Plan) -> "_Making":
        league = _league(plan, 0)
        rng = league.rng
        texts = (
            text
            for _ in range(TOKENIZER_TEXTS)
            for text in (league.refusal() if rng.random() < 0.7 else league.fact()[0])
        )
        tokenizer = make_tokenizer(texts, names=[person.name for person in league.people])
        save_tokenizer(tokenizer, folder)
        end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)
        config = CONFIG | {"bos_token_id": pad, "eos_token_id": end, "pad_token_id": pad}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if not (folder / CARD_NAME).exists():
            (folder / CARD_NAME).write_text(CARD.format(seed=plan.seed, steps=plan.steps), encoding="utf-8")
        making = cls(plan, league, tokenizer)
        mx.random.seed(plan.seed)
        making.model.update(
            tree_unflatten([_drawn(name, array) for name, array in tree_flatten(making.model.parameters())])
        )
        return making

    @classmethod
    def resumed(cls, folder: Path, plan: Plan) -> "_Making":
        saved = pickle.loads((folder / "resume.pkl").read_bytes())
        if saved["plan"] != plan:
            raise ValueError(f"{folder} holds an unfinished build of another plan: {saved['plan']}; use another folder")
        making = cls(plan, saved["league"], Tokenizer.from_file(str(folder / "tokenizer.json")))
        making.step = saved["step"]
        making._begin_course(saved["course"], saved["league"])
        making.model.load_weights([(name, mx.array(array)) for name, array in saved["weights"].items()])
        making.optimizer.state = tree_unflatten([(name, mx.array(array)) for name, array in saved["optimizer"].items()])
        return making

    def _begin_course(self, at: int, league: League) -> None:
        self.course, self.league = at, league
        self.optimizer = optim.AdamW(self.plan.learning_rate(at), betas=[0.9, 0.98], weight_decay=0.01)
        self.optimizer.init(self.model.trainable_parameters())

    def make_steps(self) -> Callable[[], str]:
        """Two steps; returns what writes the line for the log."""
        if (at := self.plan.course_at(self.step)) != self.course:
            self._begin_course(at, _league(self.plan, at))
        begin, end = self.plan.bounds(at)
        closing = self.step >= end - self.plan.closing_share * (end - begin)
        for rows in draw_steps(self.step, closing=closing, league=self.league, tokenizer=self.tokenizer):
            lanes = by_lanes([practice.row for practice in rows], len(streams()))
            batches = [to_batch([rows[index].row for index in lane]) for lane in lanes]
            (loss, worst), gradients = self.gradient(self.model, *batches)
            gradients, _ = optim.clip_grad_norm(gradients, 1.0)
            self.optimizer.update(self.model, gradients)
            mx.eval(loss, worst, self.model.parameters(), self.optimizer.state)
            answered = [rows[index] for lane in lanes for index in lane]
            self._grade(answered, np.concatenate(worst) < KNOWN_LOSS, replace=not closing)
            self.step += 1
        return lambda: self._line(loss.item())

    def save(self, folder: Path) -> None:
        weights = dict(tree_flatten(self.model.parameters()))
        optimizer = {name: np.array(array) for name, array in tree_flatten(self.optimizer.state)}
        state = {"step": self.step, "course": self.course, "plan": self.plan, "league": self.league}
        state["optimizer"] = optimizer
        state["weights"] = {name: np.array(array) for name, array in weights.items()}
        replace_file(folder / "resume.pkl", pickle.dumps(state))
        mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})

    def _grade(self, rows: list[Practice], right: "npt.NDArray[np.bool_]", *, replace: bool) -> None:
        for practice, known in zip(rows, right.tolist(), strict=True):
            self.tally.setdefault(practice.kind, []).append(known)
            if practice.person is not None:
                self.league.graded(practice.person, right=known, replace=replace)

    def _line(self, loss: float) -> str:
        shares = " ".join(f"{kind} {sum(known) / len(known):.3f}" for kind, known in sorted(self.tally.items()))
        stays = self.league.stays[-50:]
        stay = f"{sum(stays) / len(stays):.0f}" if stays else "-"
        seconds = time.perf_counter() - self.since
        self.tally, self.since = {}, time.perf_counter()
        return (
            f"step {self.step} of {self.plan.steps} loss {loss:.3f} right: {shares}; {len(self.league.stays)} people learnt, "
            f"{stay} questions each a week; {1000 * seconds / REPORT_EVERY:.0f} ms a step"
        )


def _league(plan: Plan, at: int) -> League:
    """The league of a course at its beginning; nobody of an earlier one is in it."""
    course = plan.courses[at]
    return League(random.Random(plan.seed + at), load_templates(), course.league_size, course.manner)


def _drawn(name: str, array: mx.array) -> tuple[str, mx.array]:
    if "norm" in name:
        return name, mx.ones(array.shape)
    return name, mx.random.normal(array.shape) * (0.06 if "embed" in name else 0.04)


def _loss(model: Model, *batches: Batch) -> tuple[mx.array, list[mx.array]]:
    """The loss of a step, and each row's worst token, batch by batch."""
    sums, worst = [], []
    for batch, stream in zip(batches, streams(), strict=False):
        with mx.stream(stream):
            losses = token_losses(answer_logits(model, batch.tokens, batch.wanted), batch.targets) * batch.weights
            sums.append(losses.sum())
            worst.append(losses.max(-1))
    return cast(mx.array, sum(sums)) / TARGETS_A_STEP, worst
