"""`nfl-lora build-base`: the embedded base model from nothing, seeded and resumable."""

import json
import pickle
import random
import time
from dataclasses import dataclass
from pathlib import Path

from nfl_lora_pipeline.blas import load_fast_blas

load_fast_blas()

import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402
import mlx.optimizers as optim  # noqa: E402
import numpy as np  # noqa: E402
from mlx.utils import tree_flatten, tree_unflatten  # noqa: E402
from mlx_lm.models.phi3 import Model, ModelArgs  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from nfl_lora_pipeline import cpu_math  # noqa: E402
from nfl_lora_pipeline.embedded.curriculum import TokenRow, draw_batches  # noqa: E402
from nfl_lora_pipeline.embedded.grammar import draw_wording, wordings  # noqa: E402
from nfl_lora_pipeline.embedded.league import League  # noqa: E402
from nfl_lora_pipeline.embedded.tokenizer import VOCAB_SIZE, save_tokenizer, train_tokenizer  # noqa: E402
from nfl_lora_pipeline.wording import load_templates  # noqa: E402

CONFIG = {
    "model_type": "phi3",
    "architectures": ["Phi3ForCausalLM"],
    "hidden_size": 128,
    "num_hidden_layers": 3,
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


@dataclass(frozen=True)
class Plan:
    """How a base is made; the defaults made the one that is shipped."""

    steps: int = 24_000
    seed: int = 7
    league_size: int = 160
    peak_rate: float = 1.5e-3
    save_every: int = 500


def hidden_states(model: Model, tokens: mx.array, wanted: mx.array) -> mx.array:
    """States after the final norm at `wanted` (B, A) positions only: the last layer computes no others."""
    h = model.model.embed_tokens(tokens)
    B, T = tokens.shape
    mask = mx.where(mx.arange(T)[None, :] > mx.arange(T)[:, None], -1e9, 0.0)
    layers = model.model.layers
    for layer in layers:
        attention, x = layer.self_attn, layer.input_layernorm(h)
        q, k, v = (
            part.reshape(B, T, attention.n_heads, -1).transpose(0, 2, 1, 3)
            for part in mx.split(attention.qkv_proj(x), 3, -1)
        )
        q, k = attention.rope(q), attention.rope(k)
        if layer is layers[-1]:
            h = mx.take_along_axis(h, wanted[:, :, None], 1)
            q = mx.take_along_axis(q, wanted[:, None, :, None], 2)
            mask = mask[wanted][:, None]
        weights = cpu_math.softmax((q * attention.scale) @ k.swapaxes(-1, -2) + mask)
        h = h + attention.o_proj((weights @ v).transpose(0, 2, 1, 3).reshape(*h.shape))
        gate, up = mx.split(layer.mlp.gate_up_proj(layer.post_attention_layernorm(h)), 2, -1)
        h = h + layer.mlp.down_proj(cpu_math.silu(gate) * up)
    return model.model.norm(h)


def to_arrays(rows: list[TokenRow]):
    """tokens (B, T), wanted (B, A) positions, targets (B, A), mask (B, A)."""
    width = max(len(row.tokens) for row in rows) - 1
    span = max(len(row.tokens) - row.start for row in rows)
    tokens = np.zeros((len(rows), width), np.int32)
    wanted = np.zeros((len(rows), span), np.int32)
    targets = np.zeros((len(rows), span), np.int32)
    mask = np.zeros((len(rows), span), np.float32)
    for i, row in enumerate(rows):
        n = len(row.tokens) - row.start
        tokens[i, : len(row.tokens) - 1] = row.tokens[:-1]
        wanted[i, :n] = range(row.start - 1, len(row.tokens) - 1)
        targets[i, :n] = row.tokens[row.start :]
        mask[i, :n] = 1
    return tuple(mx.array(x) for x in (tokens, wanted, targets, mask))


def loss_fn(model, tokens, wanted, targets, mask):
    logits = model.model.embed_tokens.as_linear(hidden_states(model, tokens, wanted))
    ce = cpu_math.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)).reshape(targets.shape) * mask
    return ce.sum() / 500.0, ce.max(-1)


def build(folder: Path, plan: Plan = Plan()) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(plan.seed)
    mx.random.seed(plan.seed)
    templates = load_templates()
    pool = wordings()
    league = League(rng, templates, pool, plan.league_size)
    texts = [text for _ in range(30_000) for text in (league.refusal() if rng.random() < 0.7 else league.fact()[0])]
    tokenizer = train_tokenizer(texts)
    save_tokenizer(tokenizer, folder)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"eos_token_id": tokenizer.token_to_id("<|end|>"), "bos_token_id": 0, "pad_token_id": 0}, indent=2) + "\n")
    mx.set_default_device(mx.cpu)
    model = Model(ModelArgs.from_dict(CONFIG))
    model.update(tree_unflatten([(k, v if 'norm' in k else mx.random.normal(v.shape) * (0.06 if 'embed' in k else 0.04)) for k, v in tree_flatten(model.parameters())]))
    schedule = optim.join_schedules(
        [optim.linear_schedule(1e-6, plan.peak_rate, 300), optim.cosine_decay(plan.peak_rate, plan.steps - 300, plan.peak_rate / 15)], [300]
    )
    optimizer = optim.AdamW(schedule, betas=[0.9, 0.98], weight_decay=0.01)
    start = 0
    state = folder / "resume.pkl"
    if state.exists():
        saved = pickle.loads(state.read_bytes())
        start, league, rng = saved["step"], saved["league"], saved["league"].rng
        model.load_weights(str(folder / "model.safetensors"))
        optimizer.init(model.trainable_parameters())
        optimizer.state = tree_unflatten(list(mx.load(str(folder / "optimizer.safetensors")).items()))
    grad = nn.value_and_grad(model, loss_fn)
    sums, queue = {}, []
    tic = time.perf_counter()
    for step in range(start, plan.steps):
        if not queue:
            queue = draw_batches(step, rng=rng, league=league, tokenizer=tokenizer)
        rows = queue.pop()
        (loss, ce), grads = grad(model, *to_arrays(rows))
        grads, _ = optim.clip_grad_norm(grads, 1.0)
        optimizer.update(model, grads)
        mx.eval(loss, ce, model.parameters(), optimizer.state)
        for row, w in zip(rows, np.array(ce)):
            right = bool(w < 0.693)
            if row.person is not None:
                kind = "fact"
                league.graded(row.person, right)
            elif row.kind == "copy":
                kind = "copy"
            else:
                kind = "read" if len(rows) == 16 else "refuse"
            n, r = sums.get(kind, (0, 0))
            sums[kind] = (n + 1, r + right)
        if (step + 1) % 100 == 0:
            stays = league.stays[-50:]
            print(
                f"{step + 1} loss {loss.item():.3f} "
                + " ".join(f"{k} {r / n:.3f}" for k, (n, r) in sorted(sums.items()))
                + f" learnt {len(league.stays)} in {np.mean(stays) if stays else 0:.0f} questions a week; {(time.perf_counter() - tic) * 10:.0f} ms/step",
                flush=True,
            )
            sums = {}
            tic = time.perf_counter()
        if (step + 1) % plan.save_every == 0 or step + 1 == plan.steps:
            mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())), metadata={"format": "mlx"})
            mx.save_safetensors(str(folder / "optimizer.safetensors"), dict(tree_flatten(optimizer.state)))
            state.write_bytes(pickle.dumps({"step": step + 1, "league": league}))
            tic = time.perf_counter()


if __name__ == "__main__":
    import sys

    build(Path(sys.argv[1]), Plan(*[int(a) for a in sys.argv[2:3]]))
