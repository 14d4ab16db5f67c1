"""What midtraining, finetuning and reinforcement learning start from: python -m pytest tests/test_finetune.py"""
import json

import pytest
from tiny import save_tiny_checkpoint

from nanochat.common import DataError, UsageError
from nanochat.train import checkpoint, finetune
from scripts import chat_sft, mid_train


@pytest.mark.parametrize("data", ["kindergarten", "simplespelling"])
@pytest.mark.parametrize("count", [20, 1000])
def test_as_many_conversations_are_trained_on_as_asked_for(data, count):
    chosen, held = finetune.conversations(data, "mid", count)
    assert len(chosen) == count and len(held) == (count + finetune.VAL_CONVERSATIONS) // 20


def test_a_damaged_newest_checkpoint_is_passed_over_for_model_and_masters():
    model, tokenizer = save_tiny_checkpoint("base", "kindergarten")
    folder = checkpoint.stage_dir("base") / "tiny"
    checkpoint.save(folder, 9, model.state_dict(), None, checkpoint.read_meta(folder / "000005"),
                    tokenizer=tokenizer)
    (folder / "000009" / "model.safetensors").write_bytes(b"cut short")
    origin = finetune.start(mid_train.Config(device="cpu"), "mid")
    assert origin.folder == folder / "000005"
    finetune.optimizer_from(origin, 1.0)


def test_conversations_for_validation_without_an_answer_in_reach_are_refused(tmp_path):
    save_tiny_checkpoint("base", "kindergarten")
    config = chat_sft.Config(source="base", device="cpu", data=str(tmp_path / "mine.jsonl"), total_batch_size=256)
    long = [{"role": "user", "content": "why " * 300}, {"role": "assistant", "content": "So."}]
    (tmp_path / "mine.jsonl").write_text((json.dumps({"messages": long}) + "\n") * 30, encoding="utf-8")
    with pytest.raises(DataError, match="nothing to learn, or to validate by"):
        finetune.resolve(config, "sft", finetune.start(config, "sft"))


@pytest.mark.parametrize("flags", [{}, {"tag": "more"}, {"source_tag": "tiny"}, {"source_tag": "tiny", "tag": "tiny"}])
def test_a_run_that_would_start_from_itself_is_refused(flags):
    """Resumed, it would find its own checkpoint as the newest of the stage, and with --fresh delete what it starts from."""
    save_tiny_checkpoint("sft", "kindergarten")
    with pytest.raises(UsageError, match="--source_tag"):
        finetune.start(chat_sft.Config(source="sft", device="cpu", **flags), "sft")


def test_a_run_may_start_from_another_of_its_stage():
    save_tiny_checkpoint("sft", "kindergarten")
    origin = finetune.start(chat_sft.Config(source="sft", source_tag="tiny", tag="more", device="cpu"), "sft")
    assert origin.tag == "more" and origin.folder.parent.name == "tiny"
