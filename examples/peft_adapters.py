"""Every task's adapter saved in PEFT's format, and loaded back."""

import tempfile

import tiny_llama
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from treelora import TreeRegulariser

lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
model = get_peft_model(tiny_llama.model(), lora)
tree = TreeRegulariser(model)
trained = [p for p in model.parameters() if p.requires_grad]
probe = torch.arange(8)[None]

with tempfile.TemporaryDirectory() as folder:
    logits = []
    for index in range(2):
        optimizer = torch.optim.Adam(trained, lr=1e-2)
        batch = {
            k: torch.stack([row[k] for row in tiny_llama.task(index)])
            for k in ("input_ids", "labels")
        }
        tree.start_task()
        for _ in range(10):
            loss = model(**batch).loss
            optimizer.zero_grad()
            (loss + tree.penalty(loss)).backward()
            optimizer.step()
        tree.end_task()
        model.save_pretrained(f"{folder}/task{index}")
        logits.append(model.eval()(probe).logits)
    for index, expected in enumerate(logits):
        loaded = PeftModel.from_pretrained(tiny_llama.model(), f"{folder}/task{index}").eval()
        torch.testing.assert_close(loaded(probe).logits, expected)
        print(f"task {index}: the adapter that was loaded gives the logits of the one saved")
