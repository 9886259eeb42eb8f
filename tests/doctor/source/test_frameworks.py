"""Code for frameworks, where a part of the ritual is theirs: right scripts are silent, the usual mistakes are found."""

from __future__ import annotations

import textwrap

import libcst as cst
import pytest

from trueloop.doctor.findings import Finding
from trueloop.doctor.precedence import nearest_to_the_cause
from trueloop.doctor.source.checks import found_in
from trueloop.doctor.source.units import Unit

LIGHTNING = """
import torch
import torch.nn.functional as F
import lightning as L
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split
"""
ACCELERATE = """
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
"""
IGNITE = """
import torch
from torch import nn
from torch.utils.data import DataLoader
from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from ignite.metrics import Accuracy, Loss
"""
TRANSFORMERS = """
import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments
"""
FABRIC = """
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import nn, optim
from torch.utils.data import DataLoader
"""
DEEPSPEED = """
import deepspeed
import torch
from torch import nn
"""
OURS = """
import torch
import trueloop as tl
from torch import nn
from torch.utils.data import DataLoader
"""

RIGHT = {
    "lightning, automatic": LIGHTNING
    + """
class Classifier(L.LightningModule):
    def __init__(self, lr=1e-3):
        super().__init__()
        self.save_hyperparameters()
        self.body = nn.Sequential(nn.Linear(28 * 28, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(64, 10)
        self.validation_step_outputs = []

    def forward(self, x):
        return self.head(self.body(x.flatten(1)))

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        loss = F.cross_entropy(logits, y)
        acc = (logits.softmax(-1).argmax(1) == y).float().mean()
        self.log_dict({"train_loss": loss, "train_acc": acc}, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.validation_step_outputs.append(logits)
        self.log("val_loss", F.cross_entropy(logits, y))

    def on_validation_epoch_end(self):
        torch.cat(self.validation_step_outputs)
        self.validation_step_outputs.clear()

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "epoch"}}


if __name__ == "__main__":
    data = TensorDataset(torch.randn(512, 784), torch.randint(0, 10, (512,)))
    train, val = random_split(data, [400, 112])
    trainer = L.Trainer(max_epochs=3, gradient_clip_val=1.0, accumulate_grad_batches=4)
    trainer.fit(Classifier(), DataLoader(train, 32, shuffle=True), DataLoader(val, 64))
    trainer.test(dataloaders=DataLoader(val, 64))
""",
    "lightning, one cycle by the step": LIGHTNING
    + """
class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)
        self.losses = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.losses.append(loss.item())
        return {"loss": loss, "preds": self.net(x).detach()}

    def on_train_epoch_end(self):
        self.log("epoch_loss", sum(self.losses) / len(self.losses))
        self.losses.clear()

    def configure_optimizers(self):
        opt = torch.optim.SGD(self.parameters(), lr=0.1)
        sched = torch.optim.lr_scheduler.OneCycleLR(
            opt, max_lr=0.1, total_steps=self.trainer.estimated_stepping_batches
        )
        return [opt], [{"scheduler": sched, "interval": "step"}]
""",
    "lightning, a GAN by hand": LIGHTNING
    + """
class GAN(L.LightningModule):
    def __init__(self, latent=16):
        super().__init__()
        self.automatic_optimization = False
        self.latent = latent
        self.generator = nn.Sequential(nn.Linear(latent, 32), nn.ReLU(), nn.Linear(32, 64), nn.Tanh())
        self.discriminator = nn.Sequential(nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1), nn.Sigmoid())

    def forward(self, z):
        return self.generator(z)

    def adversarial_loss(self, y_hat, y):
        return F.binary_cross_entropy(y_hat, y)

    def training_step(self, batch):
        imgs, _ = batch
        g_opt, d_opt = self.optimizers()
        z = torch.randn(imgs.shape[0], self.latent).type_as(imgs)

        self.toggle_optimizer(g_opt)
        valid = torch.ones(imgs.size(0), 1).type_as(imgs)
        g_loss = self.adversarial_loss(self.discriminator(self(z)), valid)
        self.log("g_loss", g_loss, prog_bar=True)
        self.manual_backward(g_loss)
        g_opt.step()
        g_opt.zero_grad()
        self.untoggle_optimizer(g_opt)

        self.toggle_optimizer(d_opt)
        real_loss = self.adversarial_loss(self.discriminator(imgs), valid)
        fake = torch.zeros(imgs.size(0), 1).type_as(imgs)
        fake_loss = self.adversarial_loss(self.discriminator(self(z).detach()), fake)
        d_loss = (real_loss + fake_loss) / 2
        self.log("d_loss", d_loss, prog_bar=True)
        self.manual_backward(d_loss)
        d_opt.step()
        d_opt.zero_grad()
        self.untoggle_optimizer(d_opt)

    def configure_optimizers(self):
        opt_g = torch.optim.Adam(self.generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        opt_d = torch.optim.Adam(self.discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        return [opt_g, opt_d], []
""",
    "lightning, accumulation and clipping by hand": LIGHTNING
    + """
class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.net = nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        opt = self.optimizers()
        x, y = batch
        loss = F.mse_loss(self.net(x).squeeze(-1), y) / 4
        self.manual_backward(loss)
        if (batch_idx + 1) % 4 == 0:
            self.clip_gradients(opt, gradient_clip_val=0.5, gradient_clip_algorithm="norm")
            opt.step()
            opt.zero_grad()
            sch = self.lr_schedulers()
            sch.step()
        if self.trainer.is_last_batch:
            self.log("lr", opt.param_groups[0]["lr"])

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1000)]
""",
    "lightning, a frozen encoder": LIGHTNING
    + """
from torchvision.models import resnet18


class Transfer(L.LightningModule):
    def __init__(self):
        super().__init__()
        backbone = resnet18(weights="DEFAULT")
        self.features = nn.Sequential(*list(backbone.children())[:-1])
        self.features.eval()
        self.head = nn.Linear(512, 10)

    def forward(self, x):
        self.features.eval()
        with torch.no_grad():
            features = self.features(x).flatten(1)
        return self.head(features)

    def training_step(self, batch, _):
        x, y = batch
        return F.cross_entropy(self(x), y)

    def predict_step(self, batch, _):
        return self(batch[0]).softmax(-1)

    def configure_optimizers(self):
        return torch.optim.Adam(self.head.parameters(), lr=1e-3)
""",
    "lightning, a data module and a shared step": LIGHTNING
    + """
class Data(L.LightningDataModule):
    def setup(self, stage):
        full = TensorDataset(torch.randn(100, 4), torch.randn(100, 1))
        self.train_set, self.val_set = random_split(full, [80, 20])

    def train_dataloader(self):
        return DataLoader(self.train_set, batch_size=8, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(self.val_set, batch_size=8)


class VAE(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.mu, self.var = nn.Linear(4, 2), nn.Linear(4, 2)
        self.decoder = nn.Linear(2, 4)

    def _shared_step(self, batch, stage):
        x, _ = batch
        h = F.relu(self.encoder(x))
        mu, log_var = self.mu(h), self.var(h)
        z = mu + torch.randn_like(mu) * (0.5 * log_var).exp()
        recon = F.mse_loss(self.decoder(z), x)
        kl = -0.5 * (1 + log_var - mu.pow(2) - log_var.exp()).sum(1).mean()
        loss = recon + 0.01 * kl
        self.log(f"{stage}_loss", loss)
        return loss

    def training_step(self, batch, batch_idx):
        return self._shared_step(batch, "train")

    def validation_step(self, batch, batch_idx):
        return self._shared_step(batch, "val")

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters())
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=3)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}


L.Trainer(max_epochs=2).fit(VAE(), datamodule=Data())
""",
    "lightning, a teacher": LIGHTNING
    + """
class Distil(L.LightningModule):
    def __init__(self, teacher):
        super().__init__()
        self.teacher = teacher
        for p in self.teacher.parameters():
            p.requires_grad = False
        self.student = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5))

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.teacher.eval()
        with torch.no_grad():
            soft = F.softmax(self.teacher(x) / 4.0, dim=-1)
        logits = self.student(x)
        distil = F.kl_div(F.log_softmax(logits / 4.0, dim=-1), soft, reduction="batchmean") * 16
        return 0.7 * distil + 0.3 * F.cross_entropy(logits, y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.student.parameters())
""",
    "accelerate, as its documentation has it": ACCELERATE
    + """
def main():
    accelerator = Accelerator(gradient_accumulation_steps=2, mixed_precision="fp16")
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    train_loader = DataLoader(TensorDataset(torch.randn(64, 4), torch.randint(0, 3, (64,))), 8, shuffle=True)
    eval_loader = DataLoader(TensorDataset(torch.randn(64, 4), torch.randint(0, 3, (64,))), 8)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, epochs=3, steps_per_epoch=len(train_loader))
    model, optimizer, train_loader, eval_loader, scheduler = accelerator.prepare(
        model, optimizer, train_loader, eval_loader, scheduler
    )
    criterion = nn.CrossEntropyLoss()
    for epoch in range(3):
        model.train()
        total_loss = 0
        for inputs, targets in train_loader:
            with accelerator.accumulate(model):
                loss = criterion(model(inputs), targets)
                total_loss += loss.detach().float()
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
        model.eval()
        correct, count = 0, 0
        for inputs, targets in eval_loader:
            with torch.no_grad():
                predictions = model(inputs).argmax(dim=-1)
            predictions, references = accelerator.gather_for_metrics((predictions, targets))
            correct += (predictions == references).sum().item()
            count += len(references)
        accelerator.print(f"epoch {epoch}: {correct / count:.3f}")
    accelerator.wait_for_everyone()
    accelerator.save(accelerator.unwrap_model(model).state_dict(), "model.pt")


main()
""",
    "accelerate with transformers": ACCELERATE
    + """
import evaluate
from transformers import AutoModelForSequenceClassification, get_linear_schedule_with_warmup


def training_function(config, args, train_dataloader, eval_dataloader):
    accelerator = Accelerator(cpu=args.cpu)
    metric = evaluate.load("glue", "mrpc")
    model = AutoModelForSequenceClassification.from_pretrained("bert-base-cased", return_dict=True)
    optimizer = torch.optim.AdamW(params=model.parameters(), lr=config["lr"])
    lr_scheduler = get_linear_schedule_with_warmup(
        optimizer=optimizer, num_warmup_steps=100, num_training_steps=len(train_dataloader) * 3
    )
    model, optimizer, train_dataloader, eval_dataloader, lr_scheduler = accelerator.prepare(
        model, optimizer, train_dataloader, eval_dataloader, lr_scheduler
    )
    for epoch in range(3):
        model.train()
        for step, batch in enumerate(train_dataloader):
            batch.to(accelerator.device)
            outputs = model(**batch)
            loss = outputs.loss / 4
            accelerator.backward(loss)
            if step % 4 == 0:
                optimizer.step()
                lr_scheduler.step()
                optimizer.zero_grad()
        model.eval()
        for step, batch in enumerate(eval_dataloader):
            with torch.no_grad():
                outputs = model(**batch)
            predictions = outputs.logits.argmax(dim=-1)
            predictions, references = accelerator.gather_for_metrics((predictions, batch["labels"]))
            metric.add_batch(predictions=predictions, references=references)
        accelerator.print(metric.compute())
""",
    "fabric": FABRIC
    + """
def main(data, held_out):
    fabric = Fabric(accelerator="cpu", devices=2, precision="bf16-mixed")
    fabric.launch()
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 2))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    model, optimizer = fabric.setup(model, optimizer)
    train_loader, val_loader = fabric.setup_dataloaders(DataLoader(data, 8, shuffle=True), DataLoader(held_out, 8))
    for epoch in range(5):
        model.train()
        for i, (x, y) in enumerate(train_loader):
            is_accumulating = i % 8 != 0
            with fabric.no_backward_sync(model, enabled=is_accumulating):
                loss = F.cross_entropy(model(x), y)
                fabric.backward(loss / 8)
            if not is_accumulating:
                fabric.clip_gradients(model, optimizer, max_norm=1.0)
                optimizer.step()
                optimizer.zero_grad()
        model.eval()
        correct, seen = 0, 0
        with torch.no_grad():
            for x, y in val_loader:
                correct += (model(x).argmax(1) == y).sum().item()
                seen += len(y)
        fabric.print(correct / seen)
        fabric.save("checkpoint.ckpt", {"model": model, "optimizer": optimizer, "epoch": epoch})
""",
    "transformers, fine-tuning": TRANSFORMERS
    + """
from datasets import load_dataset

dataset = load_dataset("yelp_review_full")
tokenizer = AutoTokenizer.from_pretrained("google-bert/bert-base-cased")
tokenized = dataset.map(lambda e: tokenizer(e["text"], padding="max_length", truncation=True), batched=True)
model = AutoModelForSequenceClassification.from_pretrained("google-bert/bert-base-cased", num_labels=5)


def compute_metrics(eval_pred):
    logits, labels = eval_pred
    predictions = np.argmax(logits, axis=-1)
    return {"accuracy": (predictions == labels).mean()}


class WeightedTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        logits = outputs.get("logits")
        loss_fct = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0], device=model.device))
        loss = loss_fct(logits.view(-1, self.model.config.num_labels), labels.view(-1))
        return (loss, outputs) if return_outputs else loss


args = TrainingArguments(output_dir="out", eval_strategy="epoch", learning_rate=2e-5, num_train_epochs=3)
trainer = WeightedTrainer(
    model=model,
    args=args,
    train_dataset=tokenized["train"],
    eval_dataset=tokenized["test"],
    compute_metrics=compute_metrics,
)
trainer.train()
trainer.save_model()
""",
    "ignite, supervised": IGNITE
    + """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 10, 5)
        self.drop = nn.Dropout2d()
        self.fc = nn.Linear(1440, 10)

    def forward(self, x):
        x = self.drop(torch.relu(nn.functional.max_pool2d(self.conv(x), 2)))
        return nn.functional.log_softmax(self.fc(x.flatten(1)), dim=-1)


def run(train_loader, val_loader, device="cpu"):
    model = Net().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)
    criterion = nn.NLLLoss()
    trainer = create_supervised_trainer(model, optimizer, criterion, device=device)
    val_metrics = {"accuracy": Accuracy(), "nll": Loss(criterion)}
    evaluator = create_supervised_evaluator(model, metrics=val_metrics, device=device)

    @trainer.on(Events.ITERATION_COMPLETED(every=100))
    def log_training_loss(engine):
        print(engine.state.epoch, engine.state.output)

    @trainer.on(Events.EPOCH_COMPLETED)
    def log_training_results(engine):
        evaluator.run(train_loader)
        print(evaluator.state.metrics["accuracy"])

    @trainer.on(Events.EPOCH_COMPLETED)
    def log_validation_results(engine):
        evaluator.run(val_loader)
        print(evaluator.state.metrics["nll"])

    trainer.run(train_loader, max_epochs=10)
""",
    "ignite, steps by hand": IGNITE
    + """
def create(model, train_loader, val_loader):
    optimizer = torch.optim.Adam(model.parameters())
    loss_fn = nn.CrossEntropyLoss()

    def train_step(engine, batch):
        model.train()
        optimizer.zero_grad()
        x, y = batch
        y_pred = model(x)
        loss = loss_fn(y_pred, y)
        loss.backward()
        optimizer.step()
        return loss.item()

    def validation_step(engine, batch):
        model.eval()
        with torch.no_grad():
            x, y = batch
            return model(x), y

    trainer, evaluator = Engine(train_step), Engine(validation_step)
    Accuracy().attach(evaluator, "accuracy")
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: evaluator.run(val_loader))
    trainer.run(train_loader, max_epochs=5)


create(nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 3)), DataLoader([], 4), DataLoader([], 4))
""",
    "deepspeed": DEEPSPEED
    + """
def main(args, trainset, epochs):
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 3))
    parameters = filter(lambda p: p.requires_grad, net.parameters())
    model_engine, optimizer, trainloader, __ = deepspeed.initialize(
        args=args, model=net, model_parameters=parameters, training_data=trainset
    )
    criterion = nn.CrossEntropyLoss()
    for epoch in range(epochs):
        model_engine.train()
        running_loss = 0.0
        for inputs, labels in trainloader:
            inputs, labels = inputs.to(model_engine.local_rank), labels.to(model_engine.local_rank)
            loss = criterion(model_engine(inputs), labels)
            model_engine.backward(loss)
            model_engine.step()
            running_loss += loss.item()
        model_engine.eval()
        with torch.no_grad():
            for inputs, labels in trainloader:
                model_engine(inputs).argmax(1)
        model_engine.save_checkpoint(args.save_dir, tag=epoch)
""",
    "trueloop, three ways": OURS
    + """
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 3))
criterion = nn.CrossEntropyLoss()
trainer = tl.Trainer(model, criterion, tl.optim.adamw(lr=1e-3), clip_norm=1.0, accumulate=2)
train, val = DataLoader([], 8, shuffle=True), DataLoader([], 8)
trainer.fit(train, val, epochs=2)
for event in trainer.train(train, val, epochs=2):
    print(event)
correct = 0
for epoch in trainer.epochs(3):
    for x, y in trainer.batches(train):
        trainer.update(criterion(model(x), y))
    for x, y in trainer.evaluating(val):
        correct += (model(x).argmax(1) == y).sum()
""",
    "trueloop, a frozen stem": OURS
    + """
stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
model = nn.Sequential(stem, nn.Flatten(), nn.Linear(512, 2))
stem.requires_grad_(False)
stem.eval()  # the trainer leaves modules in the mode that they have
trainer = tl.Trainer(model, nn.CrossEntropyLoss(), tl.optim.adamw(lr=1e-4))
trainer.fit((torch.randn(256, 1, 8, 8), torch.arange(256) % 2), epochs=10, batch_size=16)
""",
    "trueloop, one update": OURS
    + """
from trueloop.step import Step


def train(model, batches, optimizer):
    step = Step(model, optimizer)
    for x, y in batches:
        loss = nn.functional.mse_loss(model(x).squeeze(-1), y)
        step.update(loss)
""",
}
WRONG = {
    ("softmax-before-cross-entropy", "lightning, in forward"): LIGHTNING
    + """
class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return F.softmax(self.fc(x), dim=1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
""",
    ("softmax-before-cross-entropy", "lightning, in a model of its own"): LIGHTNING
    + """
class Lit(L.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.criterion = nn.CrossEntropyLoss()

    def _step(self, batch):
        x, y = batch
        return self.criterion(self.model(x), y)

    def training_step(self, batch, batch_idx):
        return self._step(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val", self._step(batch))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


lit = Lit(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Softmax(dim=-1)))
L.Trainer().fit(lit, DataLoader([]))
""",
    ("sigmoid-before-bce-with-logits", "lightning, pl"): """
import pytorch_lightning as pl
import torch
from torch import nn


class Net(pl.LightningModule):
    def __init__(self):
        super(Net, self).__init__()
        self.net = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())
        self.loss = nn.BCEWithLogitsLoss()

    def training_step(self, batch, batch_nb):
        x, y = batch
        return {"loss": self.loss(self.net(x).view(-1), y)}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
""",
    ("detached-loss", "lightning, the number is returned"): LIGHTNING
    + """
class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.fc(x), y)
        self.log("loss", loss)
        return loss.item()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
""",
    ("detached-loss", "lightning, detached in a dict"): LIGHTNING
    + """
class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.fc(x), y)
        return {"loss": loss.detach(), "log": {"loss": loss}}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
""",
    ("missing-zero-grad", "lightning, by hand"): LIGHTNING
    + """
class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.fc = nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        opt = self.optimizers()
        x, y = batch
        loss = F.cross_entropy(self.fc(x), y)
        self.manual_backward(loss)
        opt.step()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
""",
    ("step-before-backward", "lightning, by hand"): LIGHTNING
    + """
class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.fc = nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        opt = self.optimizers()
        x, y = batch
        loss = F.cross_entropy(self.fc(x), y)
        opt.zero_grad()
        opt.step()
        self.manual_backward(loss)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
""",
    ("missing-optimizer-step", "lightning, by hand"): LIGHTNING
    + """
class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.fc = nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        opt = self.optimizers()
        opt.zero_grad()
        x, y = batch
        self.manual_backward(F.cross_entropy(self.fc(x), y))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
""",
    ("clip-out-of-order", "lightning, by hand"): LIGHTNING
    + """
class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.fc = nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        opt = self.optimizers()
        x, y = batch
        loss = F.cross_entropy(self.fc(x), y)
        opt.zero_grad()
        self.clip_gradients(opt, gradient_clip_val=0.5)
        self.manual_backward(loss)
        opt.step()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
""",
    ("retained-graph", "lightning, outputs of an epoch"): LIGHTNING
    + """
class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.training_step_outputs = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.fc(x), y)
        self.training_step_outputs.append(loss)
        return loss

    def on_train_epoch_end(self):
        self.log("epoch_loss", torch.stack(self.training_step_outputs).mean())
        self.training_step_outputs.clear()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
""",
    ("parameters-not-optimized", "lightning, the head is forgotten"): LIGHTNING
    + """
class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.head(self.encoder(x)), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.encoder.parameters())
""",
    ("training-under-no-grad", "lightning"): LIGHTNING
    + """
class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        x, y = batch
        with torch.no_grad():
            out = self.fc(x)
        return F.cross_entropy(out, y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
""",
    ("scheduler-wrong-cadence", "lightning, one cycle by the epoch"): LIGHTNING
    + """
class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.fc(x), y)

    def configure_optimizers(self):
        opt = torch.optim.Adam(self.parameters())
        total = self.trainer.estimated_stepping_batches
        return [opt], [torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.01, total_steps=total)]
""",
    ("missing-super-init", "lightning"): LIGHTNING
    + """
class Net(L.LightningModule):
    def __init__(self, width):
        self.fc = nn.Linear(4, width)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.fc(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
""",
    ("evaluation-on-training-data", "lightning"): LIGHTNING
    + """
class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.fc(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.fc(x), y))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


train_loader = DataLoader(TensorDataset(torch.randn(8, 4), torch.zeros(8).long()), 4, shuffle=True)
val_loader = DataLoader(TensorDataset(torch.randn(8, 4), torch.zeros(8).long()), 4)
L.Trainer(max_epochs=3).fit(Net(), train_loader, train_loader)
""",
    ("missing-zero-grad", "accelerate"): ACCELERATE
    + """
def main(train_loader):
    accelerator = Accelerator()
    model = nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model, optimizer, train_loader = accelerator.prepare(model, optimizer, train_loader)
    for epoch in range(3):
        for x, y in train_loader:
            loss = nn.functional.cross_entropy(model(x), y)
            accelerator.backward(loss)
            optimizer.step()
""",
    ("clip-out-of-order", "accelerate"): ACCELERATE
    + """
def main(train_loader):
    accelerator = Accelerator(mixed_precision="fp16")
    model = nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model, optimizer, train_loader = accelerator.prepare(model, optimizer, train_loader)
    for epoch in range(3):
        for x, y in train_loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            accelerator.backward(loss)
            optimizer.step()
""",
    ("evaluation-in-train-mode", "accelerate"): ACCELERATE
    + """
def main(train_loader, eval_loader):
    accelerator = Accelerator()
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model, optimizer, train_loader, eval_loader = accelerator.prepare(model, optimizer, train_loader, eval_loader)
    for epoch in range(3):
        model.train()
        for x, y in train_loader:
            optimizer.zero_grad()
            accelerator.backward(nn.functional.cross_entropy(model(x), y))
            optimizer.step()
        right = 0
        with torch.no_grad():
            for x, y in eval_loader:
                predictions, labels = accelerator.gather_for_metrics((model(x).argmax(-1), y))
                right += (predictions == labels).sum().item()
        accelerator.print(right)
""",
    ("evaluation-in-train-mode", "accelerate with transformers"): ACCELERATE
    + """
from transformers import AutoModelForSequenceClassification


def main(train_loader, eval_loader):
    accelerator = Accelerator()
    model = AutoModelForSequenceClassification.from_pretrained("bert-base-cased")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model, optimizer, train_loader, eval_loader = accelerator.prepare(model, optimizer, train_loader, eval_loader)
    right = 0
    for epoch in range(3):
        model.train()
        for batch in train_loader:
            outputs = model(**batch)
            accelerator.backward(outputs.loss)
            optimizer.step()
            optimizer.zero_grad()
        for batch in eval_loader:
            with torch.no_grad():
                outputs = model(**batch)
            predictions = outputs.logits.argmax(dim=-1)
            predictions, references = accelerator.gather_for_metrics((predictions, batch["labels"]))
            right += (predictions == references).sum().item()
""",
    ("retained-graph", "accelerate"): ACCELERATE
    + """
def main(train_loader):
    accelerator = Accelerator()
    model = nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model, optimizer, train_loader = accelerator.prepare(model, optimizer, train_loader)
    for epoch in range(3):
        total_loss = 0
        for x, y in train_loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            total_loss += loss
            accelerator.backward(loss)
            optimizer.step()
        accelerator.print(total_loss / len(train_loader))
""",
    ("evaluation-builds-graph", "fabric"): FABRIC
    + """
def main(data, held_out):
    fabric = Fabric()
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 2))
    model, optimizer = fabric.setup(model, optim.SGD(model.parameters(), lr=0.1))
    train_loader, val_loader = fabric.setup_dataloaders(DataLoader(data, 8, shuffle=True), DataLoader(held_out, 8))
    for epoch in range(5):
        model.train()
        for x, y in train_loader:
            optimizer.zero_grad()
            fabric.backward(F.cross_entropy(model(x), y))
            optimizer.step()
        model.eval()
        correct = 0
        for x, y in val_loader:
            correct += (model(x).argmax(1) == y).sum().item()
        fabric.print(correct)
""",
    ("clip-out-of-order", "fabric"): FABRIC
    + """
def main(train_loader):
    fabric = Fabric()
    model = nn.Linear(4, 2)
    model, optimizer = fabric.setup(model, optim.SGD(model.parameters(), lr=0.1))
    for x, y in fabric.setup_dataloaders(train_loader):
        optimizer.zero_grad()
        fabric.backward(F.cross_entropy(model(x), y))
        optimizer.step()
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
""",
    ("softmax-before-cross-entropy", "transformers, compute_loss"): TRANSFORMERS
    + """
class WeightedTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        probs = torch.softmax(outputs.logits, dim=-1)
        loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]))(probs.view(-1, 2), labels.view(-1))
        return (loss, outputs) if return_outputs else loss
""",
    ("detached-loss", "transformers, compute_loss"): TRANSFORMERS
    + """
class MyTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = nn.functional.cross_entropy(outputs.logits, labels)
        return (loss.detach(), outputs) if return_outputs else loss.detach()
""",
    ("argmax-over-wrong-dimension", "transformers, compute_metrics"): TRANSFORMERS
    + """
model = AutoModelForSequenceClassification.from_pretrained("bert-base-cased")


def compute_metrics(eval_pred):
    logits, labels = eval_pred
    predictions = np.argmax(logits, axis=0)
    return {"accuracy": (predictions == labels).mean()}


trainer = Trainer(model=model, args=TrainingArguments("out"), compute_metrics=compute_metrics)
trainer.train()
""",
    ("softmax-before-cross-entropy", "ignite, supervised"): IGNITE
    + """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(784, 10)

    def forward(self, x):
        return torch.softmax(self.fc(x.flatten(1)), dim=1)


def run(train_loader):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    trainer = create_supervised_trainer(model, optimizer, nn.CrossEntropyLoss(), device="cpu")
    trainer.run(train_loader, max_epochs=10)
""",
    ("missing-zero-grad", "ignite, a step by hand"): IGNITE
    + """
model = nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
criterion = nn.CrossEntropyLoss()


def train_step(engine, batch):
    model.train()
    x, y = batch
    loss = criterion(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


trainer = Engine(train_step)
trainer.run(DataLoader([], 8), max_epochs=5)
""",
    ("evaluation-in-train-mode", "ignite, a step by hand"): IGNITE
    + """
def run(train_loader, val_loader):
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = nn.CrossEntropyLoss()

    def train_step(engine, batch):
        model.train()
        optimizer.zero_grad()
        x, y = batch
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    def eval_step(engine, batch):
        x, y = batch
        with torch.no_grad():
            return model(x).argmax(1), y

    trainer, evaluator = Engine(train_step), Engine(eval_step)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine):
        evaluator.run(val_loader)

    trainer.run(train_loader, max_epochs=5)
""",
    ("step-before-backward", "deepspeed"): DEEPSPEED
    + """
def main(args, loader):
    net = nn.Linear(4, 3)
    model_engine, _, _, _ = deepspeed.initialize(args=args, model=net, model_parameters=net.parameters())
    for inputs, labels in loader:
        loss = nn.functional.cross_entropy(model_engine(inputs), labels)
        model_engine.step()
        model_engine.backward(loss)
""",
    ("softmax-before-cross-entropy", "deepspeed"): DEEPSPEED
    + """
def main(args, loader):
    net = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1))
    engine, _, _, _ = deepspeed.initialize(args=args, model=net, model_parameters=net.parameters())
    criterion = nn.CrossEntropyLoss()
    for inputs, labels in loader:
        loss = criterion(engine(inputs), labels)
        engine.backward(loss)
        engine.step()
""",
    ("softmax-before-cross-entropy", "trueloop"): OURS
    + """
model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1))
trainer = tl.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=tl.optim.adamw(lr=1e-3))
trainer.fit(DataLoader([], 8, shuffle=True), epochs=3)
""",
    ("detached-loss", "trueloop"): OURS
    + """
model = nn.Linear(4, 3)
trainer = tl.Trainer(model, loss=None, optimizer=tl.optim.adamw(lr=1e-3))
for epoch in trainer.epochs(3):
    for x, y in trainer.batches(DataLoader([], 8, shuffle=True)):
        loss = nn.functional.cross_entropy(model(x), y)
        trainer.update(loss.detach())
""",
}


def found(text: str) -> list[Finding]:
    unit = Unit("script.py", cst.parse_module(textwrap.dedent(text)))
    return nearest_to_the_cause([checked.finding for checked in found_in(unit, strict=True)])


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_silent(name: str) -> None:
    assert [(one.name, one.line, one.message) for one in found(RIGHT[name]) if one.level != "note"] == []


@pytest.mark.parametrize(("rule", "name"), WRONG)
def test_the_usual_mistakes_are_found(rule: str, name: str) -> None:
    said = [one.name for one in found(WRONG[rule, name]) if one.level != "note"]
    assert said == [rule], "and nothing else"
