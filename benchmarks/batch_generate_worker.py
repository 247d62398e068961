"""Answers questions with `mlx_lm.batch_generate` in a process of its own, so that a BLAS can be left out.

python benchmarks/batch_generate_worker.py MODEL ADAPTER QUESTIONS.json [--fast-blas]

QUESTIONS.json is a list of texts. Prints JSON: `seconds` of generation, without loading, and `answers`.
"""

import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Answer, and print."""
    model_folder, adapter, file, *flags = sys.argv[1:]
    if "--fast-blas" in flags:
        from nfl_lora_pipeline.models.machine import load_fast_blas

        load_fast_blas()
    import mlx_lm

    model, tokenizer = mlx_lm.load(model_folder, adapter_path=adapter)[:2]
    questions = json.loads(Path(file).read_text(encoding="utf-8"))
    began = time.perf_counter()
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
        )
        for question in questions
    ]
    answers = mlx_lm.batch_generate(model, tokenizer, prompts, max_tokens=64).texts
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "answers": [text.strip() for text in answers]}))


if __name__ == "__main__":
    main()
