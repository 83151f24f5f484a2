"""What the published code does: PEFT, one sample a backward pass, all adapter gradients flattened.

A projection would come on top, so nothing is kept of a feature once it is normalised.
"""

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from bench.peers.protocol import Compute, Row, serve


def prepare(options: dict[str, Any]) -> Compute:
    """Load the model of `model` in `dtype`, and put a LoRA of `rank` on its blocks."""
    dtype = getattr(torch, options["dtype"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base = AutoModelForCausalLM.from_pretrained(options["model"], dtype=dtype)
    rank = options["rank"]
    adapter = LoraConfig(
        r=rank, lora_alpha=rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(base, adapter).to(device, dtype).eval()
    trained = [weight for weight in model.parameters() if weight.requires_grad]

    def feature(row: Row) -> Tensor:
        ids = torch.tensor([row.ids], device=device)
        labels = ids.clone()
        labels[0, : row.loss_start] = -100
        model.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        flat = torch.cat([weight.grad.flatten() for weight in trained])
        return functional.normalize(flat, dim=0).cpu()

    def compute(rows: list[Row]) -> None:
        for row in rows:
            feature(row)

    return compute


if __name__ == "__main__":
    serve(prepare)
