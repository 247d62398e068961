"""GGUF files that tests make: small models with random weights, written as llama.cpp's converter writes them."""

from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models import gemma3_text, llama, qwen2, qwen3
from tokenizers.pre_tokenizers import ByteLevel

FAMILIES = {"llama": llama, "qwen2": qwen2, "qwen3": qwen3, "gemma3": gemma3_text}
SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
    "rope_theta": 50_000.0,
    "tie_word_embeddings": True,
    "head_dim": 16,
}
GEMMA_SIZES = {
    "num_hidden_layers": 6,
    "query_pre_attn_scalar": 16,
    "sliding_window": 256,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROL_TOKENS = ["<|im_start|>", "<|im_end|>", "<pad>"]
MERGES = ["Ġ t", "h e", "Ġt he", "i n", "r e", "Ġ y", "a r", "d s", "Ġy ar", "Ġyar ds"]
TENSORS = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "rope_freqs": "rope_freqs",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
GEMMA_TENSORS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def byte_tokens() -> list[str]:
    """A vocabulary of byte-level merges: control tokens, the bytes, and what is merged of them."""
    return [*CONTROL_TOKENS, *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]


def piece_tokens() -> tuple[list[str], list[float], list[int]]:
    """A vocabulary of sentencepiece: its tokens, their scores and their types."""
    letters = [chr(code) for code in range(0x21, 0x7F)]
    pieces = ["\u2581", *letters, "he", "\u2581t", "\u2581the", "in", "ar", "ds", "\u2581y", "\u2581yar", "\u2581yards"]
    tokens = ["<unk>", *CONTROL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    types = [2, 3, 3, 3, *[6] * 256, *[1] * len(pieces)]
    return tokens, [0.0] * (len(tokens) - len(pieces)) + [-float(place) for place in range(len(pieces))], types


def random_model(family: str, **sizes: Any) -> Any:
    """A model of mlx-lm with random weights in float32."""
    module = FAMILIES[family]
    vocabulary = len(piece_tokens()[0]) if family == "gemma3" else len(byte_tokens())
    values = {"model_type": family, "vocab_size": vocabulary, **SIZES, **(GEMMA_SIZES if family == "gemma3" else {})}
    model = module.Model(module.ModelArgs.from_dict(values | sizes))
    if family == "gemma3":
        model.sanitize({})
    mx.random.seed(3)
    model.load_weights([(name, _random(name, array)) for name, array in tree_flatten(model.parameters())])
    return model


def write(file: Path, family: str, model: Any, kind: str = "F32", **fields: Any) -> Path:
    """Write a model as a GGUF file.

    Args:
        file: to be written.
        family: of `FAMILIES`.
        model: of `random_model`.
        kind: how matrices are stored; a K-quant, which the package `gguf` cannot make, gets random bits.
        fields: other values for fields, with "__" for "."; None leaves one out.
    """
    writer = gguf.GGUFWriter(str(file), family)
    args = model.args
    prefix = f"{family}."
    values: dict[str, Any] = {
        f"{prefix}block_count": args.num_hidden_layers,
        f"{prefix}context_length": args.max_position_embeddings,
        f"{prefix}embedding_length": args.hidden_size,
        f"{prefix}feed_forward_length": args.intermediate_size,
        f"{prefix}attention.head_count": args.num_attention_heads,
        f"{prefix}attention.head_count_kv": args.num_key_value_heads,
        f"{prefix}attention.layer_norm_rms_epsilon": float(args.rms_norm_eps),
        f"{prefix}rope.freq_base": float(args.rope_theta),
        **_tokenizer(family),
    }
    if family in ("qwen3", "gemma3"):
        values |= {f"{prefix}attention.key_length": args.head_dim, f"{prefix}attention.value_length": args.head_dim}
    if family == "gemma3":
        values[f"{prefix}attention.sliding_window"] = args.sliding_window
    values |= {name.replace("__", "."): value for name, value in fields.items()}
    for name, value in values.items():
        if value is not None:
            _add(writer, name, value)
    for name, array in tree_flatten(model.parameters()):
        _add_tensor(writer, tensor_name(family, name), _as_llama_cpp(family, name, np.array(array), args), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def tensor_name(family: str, parameter: str) -> str:
    """The name of a parameter of mlx-lm in a GGUF file."""
    module, _, kind = parameter.rpartition(".")
    names = TENSORS | (GEMMA_TENSORS if family == "gemma3" else {})
    if module.startswith("model.layers."):
        _, _, layer, inner = module.split(".", 3)
        return f"blk.{layer}.{names[inner]}.{kind}"
    return f"{names[module]}.{kind}"


def _random(name: str, array: mx.array) -> mx.array:
    if name.endswith("norm.weight"):
        return mx.random.uniform(0.5, 1.5, array.shape)
    return mx.random.normal(array.shape) * (0.1 if "embed" in name else 2.0 / array.shape[-1] ** 0.5)


def _tokenizer(family: str) -> dict[str, Any]:
    place = "tokenizer.ggml."
    if family == "gemma3":
        tokens, scores, types = piece_tokens()
        return {
            f"{place}model": "llama",
            f"{place}tokens": tokens,
            f"{place}scores": scores,
            f"{place}token_type": types,
            f"{place}add_space_prefix": False,
            f"{place}add_bos_token": True,
            f"{place}unknown_token_id": 0,
            f"{place}bos_token_id": 1,
            f"{place}eos_token_id": 2,
            "tokenizer.chat_template": CHAT_TEMPLATE,
        }
    tokens = byte_tokens()
    return {
        f"{place}model": "gpt2",
        f"{place}pre": "smollm" if family == "llama" else "qwen2",
        f"{place}tokens": tokens,
        f"{place}token_type": [3] * len(CONTROL_TOKENS) + [1] * (len(tokens) - len(CONTROL_TOKENS)),
        f"{place}merges": MERGES,
        f"{place}eos_token_id": 1,
        f"{place}padding_token_id": 2,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def _add(writer: gguf.GGUFWriter, name: str, value: Any) -> None:
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    add.get(type(value), writer.add_array)(name, value)


def _as_llama_cpp(family: str, name: str, array: np.ndarray, args: Any) -> np.ndarray:
    if family == "gemma3" and name.endswith("norm.weight"):
        return array + 1
    heads = {"q_proj": args.num_attention_heads, "k_proj": args.num_key_value_heads}.get(name.split(".")[-2])
    if family != "llama" or heads is None:
        return array
    return array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _add_tensor(writer: gguf.GGUFWriter, name: str, array: np.ndarray, kind: str) -> None:
    quantisation = gguf.GGMLQuantizationType[kind]
    if array.ndim == 1 or kind == "F32":
        writer.add_tensor(name, np.ascontiguousarray(array, np.float32))
    elif kind.endswith("_K"):
        writer.add_tensor(name, _random_blocks(array.shape, quantisation), raw_dtype=quantisation)
    else:
        writer.add_tensor(name, gguf.quantize(array, quantisation), raw_dtype=quantisation)


def _random_blocks(shape: tuple[int, ...], quantisation: gguf.GGMLQuantizationType) -> np.ndarray:
    """Blocks of any bits, but for the scales of a block, float16, which are small: the last or the first two numbers of it."""
    numbers, size = gguf.GGML_QUANT_SIZES[quantisation]
    rng = np.random.default_rng(5)
    blocks = rng.integers(0, 256, (shape[0], shape[1] // numbers, size), np.uint8)
    scale = np.frombuffer(np.array([0.001, 0.002], np.float16).tobytes(), np.uint8)
    first = {"Q4_K": 0, "Q5_K": 0, "Q2_K": size - 4}.get(quantisation.name)
    if first is None:
        blocks[..., -2:] = scale[:2]
    else:
        blocks[..., first : first + 4] = scale
    return blocks.reshape(shape[0], -1)
