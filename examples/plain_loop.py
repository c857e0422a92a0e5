"""TreeLoRA in a plain PyTorch loop: three regression tasks, one adapter."""

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from treelora import Options, TreeRegulariser

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
model = inject_adapter_in_model(LoraConfig(r=4, target_modules=["0", "2"]), model)
tree = TreeRegulariser(model, Options(strength=0.1))
trained = [p for p in model.parameters() if p.requires_grad]

for task in range(3):
    optimizer = torch.optim.Adam(trained, lr=0.01)
    weights = torch.randn(16)
    tree.start_task()
    for _ in range(100):
        x = torch.randn(32, 16)
        loss = nn.functional.mse_loss(model(x)[:, 0], x @ weights)
        optimizer.zero_grad()
        (loss + tree.penalty(loss)).backward()
        optimizer.step()
    tree.end_task()
    print(f"task {task}: loss {loss.item():.3f}, tree {tree.tree.to_dict()}")
