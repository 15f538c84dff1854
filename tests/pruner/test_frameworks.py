"""The callbacks of docs/library.md, in Lightning and in the Hugging Face Trainer, where they are installed."""

import re
import textwrap
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT
from test_loop import EXAMPLE, Inverted, batches

from pruner import GReg1

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
BLOCKS = re.findall(r"^```text\n(.*?)^```", (ROOT / "docs" / "library.md").read_text(), re.M | re.S)


def callback(name, steps, **names):
    """Return the callback of the page for a framework, with fewer steps."""
    (text,) = [block for block in BLOCKS if name in block]
    text = re.sub(r"speedup=[\d.]+, steps=\d+", f"speedup=1.5, steps={steps}", textwrap.dedent(text))
    space = {"GReg1": GReg1, "example": EXAMPLE, **names}
    exec(compile(text, "docs/library.md", "exec"), space)
    return space["Growing"]()


def test_lightning():
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = Inverted()

        def training_step(self, batch, _):
            return F.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)

    torch.manual_seed(0)
    growing, module, source = callback("lightning", 40, lightning=lightning), Module(), batches()
    trainer = lightning.Trainer(
        max_steps=60, callbacks=[growing], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        accelerator="cpu", gradient_clip_val=1e9,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader([next(source) for _ in range(60)], batch_size=None))
    assert growing.pruner.finished
    assert trainer.global_step < 60
    assert module.network.dw.groups < 16
    again = callback("lightning", 40, lightning=lightning)  # its state, as a trainer that resumes hands it over
    again.load_state_dict(growing.state_dict())
    module = Module()
    again.on_train_start(SimpleNamespace(optimizers=[module.configure_optimizers()]), module)
    assert again.pruner.finished


@pytest.mark.parametrize("max_steps", [20, 60])
def test_hugging_face_trainer(max_steps, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class Model(Inverted):
        def forward(self, pixel_values=None, labels=None):
            logits = super().forward(pixel_values)
            return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}

    torch.manual_seed(0)
    images, labels = next(batches())
    rows = [{"pixel_values": image, "labels": label} for image, label in zip(images, labels, strict=True)] * 30
    growing = callback("transformers", 40, transformers=transformers)
    arguments = transformers.TrainingArguments(
        tmp_path, max_steps=max_steps, per_device_train_batch_size=4, gradient_accumulation_steps=2, learning_rate=1e-3,
        report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    model = Model()
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, callbacks=[growing])
    trainer.train()
    assert trainer.state.global_step == min(max_steps, 40)
    assert growing.pruner.finished == (max_steps > 40)
    assert model.dw.groups < 16
