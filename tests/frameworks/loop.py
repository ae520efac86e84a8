"""PyTorch loops that are killed in tests: `python -m tests.frameworks.loop FOLDER KIND…`.

Each kind is trained once without an interruption, and once over sessions that SIGKILL ends in the middle of a batch.
A session is a process of its own, forked from this one, which has imported PyTorch but computed nothing. Prints JSON:
for each kind what both ended with, and what the sessions printed.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, WeightedRandomSampler

import haversack
from haversack.training.loops import loop

loop.RHYTHM = loop.Rhythm(first=0.0, share=0.0, shortest=0.0, largest_share=0.0)
SAMPLES, EPOCHS = 44, 3
BATCHES = SAMPLES // 4 * EPOCHS


class Augmented(Dataset):
    """Samples that draw from all three global streams, as augmentations do."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        x = torch.arange(6, dtype=torch.float32) * (index + 1) / SAMPLES
        x = x + torch.randn(6) * 0.1 + random.random() * 0.1 + float(np.random.random()) * 0.1
        return x, torch.tensor([index / SAMPLES])


class Streamed(IterableDataset):
    def __iter__(self):
        order = torch.randperm(SAMPLES)
        return (Augmented()[int(index)] for index in order)


def loader(kind):
    given = {
        "plain": {"shuffle": True},
        "workers": {"shuffle": True, "num_workers": 2, "persistent_workers": True},
        "generator": {"shuffle": True, "generator": torch.Generator().manual_seed(5)},
        "weighted": {"sampler": WeightedRandomSampler(torch.linspace(0.1, 1, SAMPLES), SAMPLES)},
        "distributed": {"sampler": DistributedSampler(range(SAMPLES), num_replicas=1, rank=0)},
    }
    if kind == "stateful":
        from torchdata.stateful_dataloader import StatefulDataLoader

        return StatefulDataLoader(Augmented(), batch_size=4, shuffle=True, num_workers=2)
    if kind == "streamed":
        return DataLoader(Streamed(), batch_size=4)
    return DataLoader(Augmented(), batch_size=4, **given.get(kind, given["plain"]))


def digest(*objects):
    hasher = hashlib.sha256()

    def update(value):
        if isinstance(value, torch.Tensor):
            hasher.update(value.detach().float().numpy().tobytes())
        elif isinstance(value, dict):
            for key, one in value.items():
                hasher.update(str(key).encode())
                update(one)
        elif isinstance(value, (list, tuple)):
            for one in value:
                update(one)
        else:
            hasher.update(repr(value).encode())

    for one in objects:
        update(one)
    return hasher.hexdigest()


def train(kind, folder, kill):
    """Train one session, which kills itself in the middle of the batch number `kill` of all sessions, if not 0."""
    torch.set_num_threads(1)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1)
    )
    if kind == "compiled":
        model = torch.compile(model, backend="aot_eager")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
    average = torch.optim.swa_utils.AveragedModel(model)
    scaler = torch.amp.GradScaler("cpu")
    seen = {"batches": 0, "losses": []}
    rest = {"scheduler": scheduler, "scaler": scaler, "average": average, "seen": seen}
    run = haversack.resumable(loader(kind), name=kind, where=folder, model=model, optimizer=optimizer, **rest)
    window = 4 if kind == "accumulated" else 1
    for epoch in run.epochs(EPOCHS):
        if kind == "distributed":
            run.sampler.set_epoch(epoch)
        for i, (x, y) in run.enumerate():
            wait_for_save(run)
            if i % window == 0:
                optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=kind == "mixed"):
                loss = torch.nn.functional.mse_loss(model(x), y)
            scaler.scale(loss).backward()
            seen["batches"] += 1
            if seen["batches"] == kill:
                os.kill(os.getpid(), signal.SIGKILL)
            if (i + 1) % window == 0:
                scaler.step(optimizer)
                scaler.update()
                average.update_parameters(model)
            seen["losses"].append(loss.item())
        scheduler.step()
    streams = [random.random(), float(np.random.random()), torch.rand(2)]
    states = [one.state_dict() for one in (model, optimizer, scheduler, average, scaler)]
    return f"{seen['batches']} {digest(*states, seen['losses'], streams)}"


def wait_for_save(run):
    """Let every step be saved, so that kills find checkpoints inside epochs also where steps take microseconds."""
    while run._run.checkpoints.saving:
        time.sleep(0.001)


def session(kind, folder, kill, train=train):
    """Run `train` in a process of its own; return its exit status, negative for a signal, and what it printed."""
    printed = folder / "printed"
    folder.mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(printed, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
        try:
            ended_with = train(kind, folder, kill)
            (folder / "result").write_text(ended_with if isinstance(ended_with, str) else json.dumps(ended_with))
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the test shows what was printed
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), printed.read_text()


def life(kind, folder, kills):
    """What a training over sessions that are killed in these batches ended with, and what each session printed."""
    sessions = [session(kind, folder, kill) for kill in [*kills, 0]]
    result = (folder / "result").read_text() if (folder / "result").exists() else ""
    return {"result": result, "status": [one for one, _ in sessions], "printed": [text for _, text in sessions]}


if __name__ == "__main__":
    root, moments = Path(sys.argv[1]), random.Random(4)
    found = {}
    for kind in sys.argv[2:]:
        kills = sorted(moments.sample(range(2, BATCHES + 1), 3))
        unbroken, killed = life(kind, root / f"{kind}-unbroken", []), life(kind, root / f"{kind}-killed", kills)
        found[kind] = {"unbroken": unbroken, "killed": killed, "kills": kills}
    print(json.dumps(found))
