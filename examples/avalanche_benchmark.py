"""TreeLoRA as a plugin of an Avalanche strategy."""

import torch
from avalanche.benchmarks import tensors_benchmark
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from treelora import TreeRegulariser
from treelora.avalanche_plugin import TreeLoRAPlugin

torch.manual_seed(0)
tasks = [(torch.randn(64, 16) + task, torch.arange(64) % 4) for task in range(3)]
benchmark = tensors_benchmark(train_tensors=tasks, test_tensors=tasks, task_labels=[0, 0, 0])
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
model = inject_adapter_in_model(LoraConfig(r=4, target_modules=["0", "2"]), model)
trained = [p for p in model.parameters() if p.requires_grad]
plugin = TreeLoRAPlugin(TreeRegulariser(model))
strategy = Naive(
    model=model,
    optimizer=torch.optim.Adam(trained, lr=0.01),
    train_mb_size=16,
    train_epochs=2,
    plugins=[plugin],
    evaluator=EvaluationPlugin(),
)
for experience in benchmark.train_stream:
    strategy.train(experience)
print(f"tree {plugin.regulariser.tree.to_dict()}")
