"""TreeLoRA in Hugging Face's Trainer, on a causal language model with PEFT's LoRA."""

import tempfile

import tiny_llama
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from treelora import Options, TreeRegulariser
from treelora.trainer_callback import TreeLoRACallback

lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
model = get_peft_model(tiny_llama.model(), lora)
callback = TreeLoRACallback(TreeRegulariser(model, Options(strength=0.5)))

for index in range(3):
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=2,
            per_device_train_batch_size=8,
            learning_rate=1e-2,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
        )
        task = tiny_llama.task(index)
        trained = Trainer(model, arguments, train_dataset=task, callbacks=[callback]).train()
    print(f"task {index}: loss {trained.training_loss:.3f}")
print(f"tree {callback.regulariser.tree.to_dict()}")
