"""The adapter that answers: loaded with its base, or put in the place of the one before it on the same base."""

import copy
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import mlx.core as mx
from mlx.utils import tree_flatten

from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.base_model import BaseModel, Model
from nfl_lora_pipeline.models.prompt import Tokenizer
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import JsonObject
from nfl_lora_pipeline.weeks.week import spoken_weeks

MOST_CONTEXT = 8_192  # tokens of prompt and answer, whatever a base can take: memory is for many requests


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter on its base.

    Attributes:
        fingerprint: of the adapter.
        weeks: partition keys that it was taught.
        stats: that it was taught.
        base: its base model.
        model: base and adapter, as mlx-lm loads them; nobody changes it any more.
        tokenizer: of the base.
        vocabulary: how many tokens there are logits for.
        context: tokens of prompt and answer together, at most.
        loaded_at: seconds since 1970.
    """

    fingerprint: str
    weeks: list[str]
    stats: list[str]
    base: BaseModel
    model: Model
    tokenizer: Tokenizer
    vocabulary: int
    context: int
    loaded_at: int

    @property
    def name(self) -> str:
        """The model's name over HTTP."""
        return f"nfl-lora-{self.fingerprint}"

    @property
    def knows(self) -> str:
        """Fingerprint and weeks, for people."""
        return f"{self.fingerprint} ({spoken_weeks(self.weeks)})"

    def to_json(self) -> JsonObject:
        """An entry of `/v1/models`."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.loaded_at,
            "owned_by": "nfl_lora_pipeline",
            "fingerprint": self.fingerprint,
            "weeks": [*self.weeks],
            "stats": [*self.stats],
            "base_model": self.base.name,
            "single_turn": self.base.single_turn,
            "context_length": self.context,
        }


def load_adapter(store: Store, fingerprint: str, before: LoadedAdapter | None = None) -> LoadedAdapter:
    """Load an adapter of a store.

    Args:
        store: the store.
        fingerprint: of the adapter.
        before: what was loaded last. On the same base, and where its adapter has the same shapes, the base's weights are
            shared with it; itself it stays as it is, and goes on answering.

    Raises:
        ValueError: a file is missing or damaged, or what was loaded gives no probabilities.
    """
    folder = store.adapter(fingerprint)
    try:
        provenance = store.provenance(fingerprint)
        store.check_adapter(fingerprint)
        base = base_models.resolve(provenance.base_model)
        if before is not None and _is_alike(store, before, base, folder):
            model, tokenizer = _with_other_weights(before.model, folder), before.tokenizer
        else:
            model, tokenizer = base_models.load(base, adapter=folder)
        logits = model(mx.array([[tokenizer.eos_token_id]]))[0, -1]
        finite = bool(mx.isfinite(logits).all().item())
    except (OSError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        raise ValueError(f"adapter {fingerprint} in {folder} cannot be loaded: {error!r}") from error
    if not finite:
        raise ValueError(f"adapter {fingerprint} in {folder} gives no finite logits: its weights are damaged")
    stated = getattr(getattr(model, "args", None), "max_position_embeddings", None)
    context = min(stated, MOST_CONTEXT) if isinstance(stated, int) and stated > 0 else MOST_CONTEXT
    return LoadedAdapter(
        fingerprint=fingerprint,
        weeks=provenance.weeks,
        stats=provenance.stats,
        base=base,
        model=model,
        tokenizer=tokenizer,
        vocabulary=int(logits.shape[0]),
        context=context,
        loaded_at=int(time.time()),
    )


def _is_alike(store: Store, before: LoadedAdapter, base: BaseModel, folder: Path) -> bool:
    """Whether only the adapter's numbers are others: same base, same layers, same shapes, same scale."""
    old = store.adapter(before.fingerprint)
    return base == before.base and _config(old) == _config(folder) and _shapes(old) == _shapes(folder)


def _config(adapter: Path) -> JsonObject:
    content: JsonObject = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    return content


def _shapes(adapter: Path) -> dict[str, tuple[int, ...]]:
    weights = cast(dict[str, mx.array], mx.load(str(adapter / "adapters.safetensors")))
    return {name: array.shape for name, array in weights.items()}


def _with_other_weights(model: Model, adapter: Path) -> Model:
    """A second model with an adapter's weights; all others are the first one's own arrays."""
    other = copy.deepcopy(model, {id(array): array for _, array in tree_flatten(model.parameters())})
    other.load_weights(str(adapter / "adapters.safetensors"), strict=False)
    mx.eval(other.parameters())
    return other
