"""What midtraining, finetuning and reinforcement learning start from: python -m pytest tests/test_finetune.py"""
import pytest

from nanochat import checkpoint, finetune
from nanochat.runtime import Runtime
from scripts import mid_train
from tiny import save_tiny_checkpoint


@pytest.mark.parametrize("data", ["kindergarten", "simplespelling"])
@pytest.mark.parametrize("count", [20, 1000])
def test_as_many_conversations_are_trained_on_as_asked_for(data, count):
    chosen, held = finetune.conversations(data, "mid", count)
    assert len(chosen) == count and len(held) == (count + finetune.VAL_CONVERSATIONS) // 20


def test_a_damaged_newest_checkpoint_is_passed_over_for_model_and_masters():
    model, tokenizer = save_tiny_checkpoint("base", "kindergarten")
    folder = checkpoint.stage_dir("base") / "tiny"
    checkpoint.save(folder, 9, model.state_dict(), None, checkpoint.read_meta(folder / "000005"))
    (folder / "000009" / "model.safetensors").write_bytes(b"cut short")
    _, _, source, loaded, *_ = finetune.start(mid_train.Config(device="cpu"))
    assert source == folder / "000005"
    finetune.optimizer_from(source, loaded, Runtime(), 1.0)
